//! Shell mode: `/bin/sh -c`, with the arguments quoted and appended.

/// The command line that `/bin/sh -c` gets.
pub fn shell_line(command: &str, args: &[String]) -> String {
    let mut line = String::with_capacity(command.len() + args.iter().map(|arg| arg.len() + 3).sum::<usize>());
    line.push_str(command);
    for arg in args {
        line.push(' ');
        quote_into(arg, &mut line);
    }
    line
}

/// Single quotes keep everything as it is, but for themselves.
fn quote_into(arg: &str, line: &mut String) {
    line.push('\'');
    for (index, part) in arg.split('\'').enumerate() {
        if index > 0 {
            line.push_str("'\\''");
        }
        line.push_str(part);
    }
    line.push('\'');
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    /// What a real shell makes of it.
    fn echoed(args: &[String]) -> Vec<u8> {
        let line = shell_line("printf '%s\\001'", args);
        let output = Command::new("/bin/sh").arg("-c").arg(line).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        output.stdout
    }

    #[test]
    fn a_command_without_arguments_stays_as_it_is() {
        assert_eq!(shell_line("echo $HOME | cat", &[]), "echo $HOME | cat");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn a_real_shell_gives_every_argument_back(args in prop::collection::vec("[^\\x00\\x01]{0,12}", 1..5)) {
            let expected: String = args.iter().map(|arg| format!("{arg}\u{1}")).collect();
            prop_assert_eq!(echoed(&args), expected.into_bytes());
        }
    }
}
