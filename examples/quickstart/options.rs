//! The command line.

pub(crate) const USAGE: &str = "\
A small shop under load, once with a bare HTTP client and once with buttress around it.

Usage: quickstart [--quick] [--seed N]

  --quick   takes less than 6 s instead of about 25 s
  --seed N  another sequence of customers and faults (default: 1)
  --help    shows this
";

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) quick: bool,
    pub(crate) seed: u64,
}

impl Options {
    /// `None` if all that is asked for is help; what is wrong otherwise.
    pub(crate) fn parse(args: impl Iterator<Item = String>) -> Result<Option<Self>, String> {
        let mut options = Self {
            quick: false,
            seed: 1,
        };
        let mut args = args;
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--help" | "-h" => return Ok(None),
                "--quick" => options.quick = true,
                "--seed" => {
                    let value = args.next().ok_or("--seed needs a number")?;
                    options.seed = value.parse().map_err(|_| {
                        format!(
                            "--seed needs a number from 0 to {}, not \"{value}\"",
                            u64::MAX
                        )
                    })?;
                }
                _ => return Err(format!("unknown argument \"{arg}\"")),
            }
        }
        Ok(Some(options))
    }
}
