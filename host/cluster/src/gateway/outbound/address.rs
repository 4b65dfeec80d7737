//! Which addresses guests may reach through a name.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

/// An address on the internet and not one of this machine. `ip` is unmapped.
pub(super) fn is_public(ip: IpAddr) -> bool {
    let global = match ip {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    };
    global && !is_own(ip)
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, d] = ip.octets();
    !(a == 0
        || a == 10
        || a == 127
        || (a == 100 && (64..128).contains(&b))
        || (a == 169 && b == 254)
        || (a == 172 && (16..32).contains(&b))
        || (a == 192 && b == 168)
        || (a == 192 && b == 0 && c == 0)
        || (a == 192 && b == 0 && c == 2)
        || (a == 192 && b == 88 && c == 99)
        || (a == 198 && (18..20).contains(&b))
        || (a == 198 && b == 51 && c == 100)
        || (a == 203 && b == 0 && c == 113)
        || a >= 224
        // The metadata and agent service of one cloud has a public address.
        || (a, b, c, d) == (168, 63, 129, 16))
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
    let [a, b, ..] = ip.segments();
    // Only what is assigned to the internet, without documentation, benchmarking and tunnels.
    (0x2000..0x4000).contains(&a) && !(a == 0x2001 && (b < 0x200 || b == 0xdb8)) && a != 0x2002 && a != 0x3fff
}

/// An address of this machine: one to which a socket can be bound.
pub(super) fn is_own(ip: IpAddr) -> bool {
    UdpSocket::bind((ip, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use wasm_operator_core::allowed_host::unmapped;

    use super::*;

    // Rule 40
    #[test]
    fn addresses_inside_are_not_public() {
        for inside in [
            "0.0.0.0",
            "0.1.2.3",
            "10.96.0.1",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.9.9.9",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "192.0.0.192",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "168.63.129.16",
            "::",
            "::1",
            "fe80::1",
            "fc00::1",
            "fd00:ec2::254",
            "ff02::1",
            "2001:db8::1",
            "2001::1",
            "100::1",
        ] {
            assert!(!is_public(unmapped(inside.parse().unwrap())), "{inside}");
        }
        for outside in ["1.1.1.1", "100.63.255.255", "100.128.0.1", "172.32.0.1", "2606:4700::1111", "2a00:1450::1"] {
            assert!(is_public(unmapped(outside.parse().unwrap())), "{outside}");
        }
    }

    #[test]
    fn ipv4_inside_of_ipv6_is_judged_as_ipv4() {
        for (mapped, meant) in [
            ("::ffff:127.0.0.1", "127.0.0.1"),
            ("::ffff:169.254.169.254", "169.254.169.254"),
            ("::127.0.0.1", "127.0.0.1"),
            ("64:ff9b::10.0.0.1", "10.0.0.1"),
            ("64:ff9b:1::10.0.0.1", "10.0.0.1"),
            ("2002:7f00:1::", "127.0.0.1"),
        ] {
            let ip = unmapped(mapped.parse().unwrap());
            assert_eq!(ip, meant.parse::<IpAddr>().unwrap(), "{mapped}");
            assert!(!is_public(ip), "{mapped}");
        }
        assert_eq!(unmapped("::ffff:1.1.1.1".parse().unwrap()), "1.1.1.1".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn addresses_of_this_machine_are_known() {
        assert!(is_own("127.0.0.1".parse().unwrap()));
        assert!(!is_own("1.1.1.1".parse().unwrap()));
    }
}
