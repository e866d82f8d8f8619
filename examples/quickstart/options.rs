//! The command line.

pub(crate) const USAGE: &str = "\
A small shop under load, once with a bare HTTP client and once with buttress around it.

Usage: quickstart [--quick] [--metrics] [--seed N]

  --quick    takes about 6 s instead of 25 s
  --metrics  also prints the metrics at the end of the run
  --seed N   another sequence of customers and faults (default: 1)
  --help     shows this
";

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) quick: bool,
    pub(crate) metrics: bool,
    pub(crate) seed: u64,
}

impl Options {
    /// `None` if all that is asked for is help; what is wrong otherwise.
    pub(crate) fn parse(args: impl Iterator<Item = String>) -> Result<Option<Self>, String> {
        let mut options = Self {
            quick: false,
            metrics: false,
            seed: 1,
        };
        let mut args = args;
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--help" | "-h" => return Ok(None),
                "--quick" => options.quick = true,
                "--metrics" => options.metrics = true,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Option<Options>, String> {
        Options::parse(args.iter().map(ToString::to_string))
    }

    #[test]
    fn options_are_off_unless_given() {
        let (quick, metrics, seed) = (false, false, 1);
        let none = Options {
            quick,
            metrics,
            seed,
        };
        assert_eq!(parse(&[]), Ok(Some(none)));
        let (quick, metrics, seed) = (true, true, 7);
        let all = Options {
            quick,
            metrics,
            seed,
        };
        assert_eq!(
            parse(&["--seed", "7", "--metrics", "--quick"]),
            Ok(Some(all))
        );
        assert_eq!(parse(&["--quick", "-h"]), Ok(None));
    }

    #[test]
    fn wrong_arguments_are_named() {
        let complaint = |args| parse(args).unwrap_err();
        assert_eq!(complaint(&["--fast"]), "unknown argument \"--fast\"");
        assert!(complaint(&["--seed", "x"]).contains("not \"x\""));
        assert!(complaint(&["--seed"]).contains("needs a number"));
    }
}
