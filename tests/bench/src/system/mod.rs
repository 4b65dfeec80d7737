//! What processes and the machine use, from `/proc` and the cgroups.

mod cgroup;
mod machine;
mod process;

pub(crate) use cgroup::MemoryGroup;
pub(crate) use machine::{Machine, Others};
pub(crate) use process::{CpuTimes, Memory, memory_of, warm_page_cache};
