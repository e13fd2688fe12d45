//! The command under the kernel shim.

use super::{Args, beside, code_of, run_command};
use crate::exit::Exit;
use crate::recording::forward::Forwarder;
use crate::recording::shim::{self, Shim};
use crate::recording::{Failure, kernel, summary};
use graven_writer::Trail;
use graven_writer::source::calls::CallSet;
use graven_writer::source::shim::{Device, Kernel as _, Rules, rules};
use std::os::fd::{AsFd as _, OwnedFd};

/// Runs the command while the module records what it does, and says what was recorded.
pub(super) fn recorded(
    args: &Args,
    calls: &CallSet,
    trail: Trail,
    forwarder: &Forwarder,
) -> Result<u8, Failure> {
    let (shim, follow) = match attached(args, calls) {
        Ok(attached) => attached,
        Err(failure) => {
            // Nothing was recorded; why not is what matters now.
            let _ = trail.close();
            return Err(failure);
        }
    };
    let stop = kernel::stop()?;
    let (ran, received) = beside(
        &stop,
        || shim.receive(&trail, &stop),
        || {
            let _ = shim.device.set_rules(&Rules::default());
        },
        || run_command(args, forwarder, Some(follow), |_| Ok(())),
    );
    // Storage that failed is why receiving failed, if it did.
    let written = trail.close()?;
    let code = code_of(ran)?;
    let received = received?;
    if !args.trail.quiet {
        summary::say_shim(&args.trail.trail, &received, &written);
    }
    Ok(code)
}

/// The shim with the rules in force, and what the command is followed through.
fn attached(args: &Args, calls: &CallSet) -> Result<(Shim, OwnedFd), Failure> {
    let mut shim = Shim::open(&args.trail.trail)?;
    shim.prove()?;
    let observer = Device::observer().map_err(|why| shim::failure(&why))?;
    let follow = observer.file().as_fd().try_clone_to_owned();
    let follow = follow
        .map_err(|why| Failure::new(Exit::RunFailed, &format!("cannot keep the device: {why}")))?;
    shim.device.set_rules(&rules::followed(calls)).map_err(|why| shim::failure(&why))?;
    Ok((shim, follow))
}
