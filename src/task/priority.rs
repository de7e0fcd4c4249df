//! The priority of threads: those that can wait are lowered, and whoever has little to do is served first.

use std::io;

/// What is added to the niceness of a thread that is lowered: it gets about a tenth of what others do who want all.
#[cfg(target_os = "linux")]
pub const NICER: i32 = 10;

/// How long a thread that is lowered goes on when another wakes up, in nanoseconds; by default that is some milliseconds.
#[cfg(target_os = "linux")]
const SLICE_NANOS: u64 = 100_000;

/// Makes this thread nicer for good, and has the system look after a shorter time whether others want its processor.
#[cfg(target_os = "linux")]
pub fn lower() -> io::Result<()> {
    let nice = rustix::process::getpriority_process(None)?;
    let size = size_of::<libc::sched_attr>();
    let attributes = libc::sched_attr {
        size: u32::try_from(size).map_err(io::Error::other)?,
        sched_policy: libc::SCHED_OTHER.cast_unsigned(),
        sched_flags: 0,
        sched_nice: nice + NICER,
        sched_priority: 0,
        // Systems that cannot do that do not look at it.
        sched_runtime: SLICE_NANOS,
        sched_deadline: 0,
        sched_period: 0,
    };
    #[expect(
        unsafe_code,
        reason = "the system reads as many bytes of the attributes as their size says, and nothing else is touched; \
                  0 is the thread that calls"
    )]
    let done = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Threads of other systems keep theirs.
#[cfg(not(target_os = "linux"))]
pub fn lower() -> io::Result<()> {
    Ok(())
}
