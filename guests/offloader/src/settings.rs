//! What the guest's environment sets. Names that the original had keep their meaning.

use std::num::ParseIntError;

/// From the environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `OFFLOAD_NAMESPACES`: the namespaces that are watched, separated by commas. Default: all.
    pub namespaces: Vec<String>,
    /// `OW_OFFLOAD_KUBE_NAMESPACE`: where the façade makes custom resources. Default: `default`.
    pub facade_namespace: String,
    /// `OFFLOAD_SERVICE_ACCOUNT`: the ServiceAccount of the actions' pods, which get no token of it. Default: that of
    /// the namespace.
    pub service_account: Option<String>,
    /// `OW_OFFLOAD_IMAGE`: the image of the side container for `pushConf`. Default: `pushConf` is refused.
    pub conf_image: Option<String>,
    /// `CONF_SERVICE_PORT`: the port of the side container. Default: 8081.
    pub conf_port: u16,
    /// `OW_OFFLOAD_LARGE_ARG_SIZE`: parameters of more bytes are kept beside the Job. Default: 32,768.
    pub large_bytes: usize,
    /// `OW_OFFLOAD_TIME_LIMIT`: `timeLimitSeconds` of flows that come through the façade. Default: 3,600.
    pub time_limit_seconds: i64,
    /// `OW_OFFLOAD_KEEP_FAILED_JOBS`, set to anything: `keepFailed` of flows that come through the façade.
    pub keep_failed: bool,
}

/// A variable that cannot be used. The administrator has to change the guest's `env`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the environment variable `{name}` is `{value}`, which is not a number: {source}")]
pub struct Error {
    name: &'static str,
    value: String,
    source: ParseIntError,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            namespaces: Vec::new(),
            facade_namespace: "default".to_owned(),
            service_account: None,
            conf_image: None,
            conf_port: 8081,
            large_bytes: 32_768,
            time_limit_seconds: crate::api::default_time_limit(),
            keep_failed: false,
        }
    }
}

impl Settings {
    /// From variables by name.
    ///
    /// # Errors
    /// When a number is none.
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let text = |name: &str| variable(name).filter(|value| !value.is_empty());
        let default = Self::default();
        Ok(Self {
            namespaces: text("OFFLOAD_NAMESPACES")
                .iter()
                .flat_map(|names| names.split(','))
                .map(|name| name.trim().to_owned())
                .filter(|name| !name.is_empty())
                .collect(),
            facade_namespace: text("OW_OFFLOAD_KUBE_NAMESPACE").unwrap_or(default.facade_namespace),
            service_account: text("OFFLOAD_SERVICE_ACCOUNT"),
            conf_image: text("OW_OFFLOAD_IMAGE"),
            conf_port: number("CONF_SERVICE_PORT", text("CONF_SERVICE_PORT"), default.conf_port)?,
            large_bytes: number("OW_OFFLOAD_LARGE_ARG_SIZE", text("OW_OFFLOAD_LARGE_ARG_SIZE"), default.large_bytes)?,
            time_limit_seconds: number(
                "OW_OFFLOAD_TIME_LIMIT",
                text("OW_OFFLOAD_TIME_LIMIT"),
                default.time_limit_seconds,
            )?,
            keep_failed: variable("OW_OFFLOAD_KEEP_FAILED_JOBS").is_some(),
        })
    }
}

fn number<N: std::str::FromStr<Err = ParseIntError>>(
    name: &'static str,
    value: Option<String>,
    default: N,
) -> Result<N, Error> {
    match value {
        None => Ok(default),
        Some(value) => value.parse().map_err(|source| Error { name, value, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_environment_gives_the_defaults() {
        assert_eq!(Settings::read(|_| None), Ok(Settings::default()));
        let empty = Settings::read(|name| (name != "OW_OFFLOAD_KEEP_FAILED_JOBS").then(String::new));
        assert_eq!(empty, Ok(Settings::default()));
    }

    #[test]
    fn the_time_limit_is_a_number_although_variables_are_text() {
        let set = |name: &str| (name == "OW_OFFLOAD_TIME_LIMIT").then(|| "7200".to_owned());
        assert_eq!(Settings::read(set).unwrap().time_limit_seconds, 7200);
        let error = Settings::read(|name| (name == "OW_OFFLOAD_TIME_LIMIT").then(|| "1h".to_owned())).unwrap_err();
        assert!(error.to_string().contains("`OW_OFFLOAD_TIME_LIMIT`") && error.to_string().contains("`1h`"));
    }

    #[test]
    fn namespaces_are_a_list() {
        let set = |name: &str| (name == "OFFLOAD_NAMESPACES").then(|| "a, b,,".to_owned());
        assert_eq!(Settings::read(set).unwrap().namespaces, ["a", "b"]);
    }
}
