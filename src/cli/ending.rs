//! How a verb ends: what a person is told, and the exit code (0 done, 1 refused or failed, 2 usage).

use std::process::ExitCode;

/// Why a verb did not do what it was asked.
#[derive(Debug)]
pub(super) enum Ended {
    /// It was refused, or something failed.
    Failed(String),
    /// It was asked in a way that cannot work.
    Misused(String),
    /// Everything was told already.
    Told,
    /// Nobody reads standard output any more.
    Unheard,
}

impl From<String> for Ended {
    fn from(message: String) -> Self {
        Ended::Failed(message)
    }
}

impl From<&str> for Ended {
    fn from(message: &str) -> Self {
        Ended::Failed(message.to_owned())
    }
}

/// Tells why, if there is something to tell, and gives the exit code.
pub(super) fn end(done: Result<(), Ended>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Ended::Failed(message)) => {
            eprintln!("tollgate: {message}");
            ExitCode::FAILURE
        }
        Err(Ended::Misused(message)) => {
            eprintln!("tollgate: {message}");
            ExitCode::from(2)
        }
        Err(Ended::Told | Ended::Unheard) => ExitCode::FAILURE,
    }
}
