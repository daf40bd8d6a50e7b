use clap::CommandFactory;

use super::*;
use crate::config::Config;
use crate::config::schema::Raw;
use crate::config::sources::parse_file;
use crate::util::golden::golden;

#[test]
fn golden_help() {
    let mut cli = Cli::command();
    cli.build();
    let mut text = cli.render_long_help().to_string();
    help_of_subcommands(&mut cli, "tidegate", &mut text);
    golden("help.txt", &text);
}

/// The help of all commands below one, and of those below them.
fn help_of_subcommands(command: &mut clap::Command, path: &str, text: &mut String) {
    for command in command.get_subcommands_mut().filter(|c| c.get_name() != "help" && !c.is_hide_set()) {
        let path = format!("{path} {}", command.get_name());
        *text += &format!("\n\n==== {path} ====\n{}", command.render_long_help());
        help_of_subcommands(command, &path, text);
    }
}

#[test]
fn time_beyond_year_9999_is_printed_as_a_number() {
    assert_eq!(time(1_764_043_392_123), "2025-11-25T04:03:12Z");
    assert_eq!(time(253_402_300_799_999), "9999-12-31T23:59:59Z");
    for ms in [253_402_300_800_000, u64::MAX] {
        assert_eq!(time(ms), ms.to_string());
    }
}

#[test]
fn golden_defaults() {
    golden("defaults.toml", &toml::to_string_pretty(&Raw::default()).expect("toml"));
}

#[test]
fn flags_become_options() {
    let cli = Cli::try_parse_from([
        "tidegate",
        "serve",
        "--listen",
        "127.0.0.1:1",
        "--control",
        "127.0.0.1:2",
        "--allow-all",
        "--store",
        "memory:",
    ]);
    let Command::Serve(flags) = cli.expect("valid").command else { panic!("serve") };
    let config = Config::validate(flags.layer().expect("a layer").try_into().expect("options")).expect("valid");
    assert_eq!(
        (config.listen.port(), config.control.port(), config.store.options.url.to_string()),
        (1, 2, "memory:".to_owned())
    );
    assert!(Cli::try_parse_from(["tidegate", "serve", "--allow-all", "--policy", "x"]).is_err());
}

#[test]
fn base_configuration_of_dev_is_valid() {
    let base = parse_file(std::path::Path::new("dev.toml"), include_str!("dev.toml")).expect("a layer");
    let config = Config::validate(base.try_into().expect("options")).expect("valid");
    assert_eq!(config.policy_mode, crate::config::policy::PolicyMode::Example);
    assert!(config.stream.below && config.live.cors.credentials && config.store.seed.len() == 5);
}

#[test]
fn base_configuration_of_dev_without_seed_fits_another_store() {
    let base = parse_file(std::path::Path::new("dev.toml"), include_str!("dev.toml")).expect("a layer");
    let mut base = dev::without_seed(base);
    merge(&mut base, single_option("store", "redis://127.0.0.1".into()));
    let config = Config::validate(base.try_into().expect("options")).expect("valid");
    assert!(config.store.seed.is_empty());
}

#[test]
fn mistakes_on_the_command_line_are_reported_without_values() {
    const SECRET: &str = "S3cretMarker";
    let check = |args: &str, says: &str| {
        let args = args.replace("%", SECRET);
        let error = Cli::try_parse_from(format!("tidegate {args}").split(' ')).map(drop).expect_err(&args);
        let text = hide_values(error).render().to_string();
        assert!(!text.contains(SECRET) && text.contains(says), "{args}\n{text}");
    };
    check("%", "unrecognized subcommand '…'");
    check("redis://u:%@h", "unrecognized subcommand '…'");
    check("serv", "unrecognized subcommand 'serv'");
    check("policy %", "unrecognized subcommand '…'");
    check("serve redis://u:%@h", "unexpected argument '…'");
    check("serve --stor redis://u:%@h", "unexpected argument '--stor'");
    check("serve --stor=redis://u:%@h", "unexpected argument '--stor'");
    check("serve --store%", "unexpected argument '…'");
    check("serve --store redis://u:%@h redis://u:%@h", "unexpected argument '…'");
    check("serve --store redis://u:%@h --store redis://u:%@h", "'--store <URL>' cannot be used multiple times");
    check("serve --allow-all=%", "unexpected value '…' for '--allow-all'");
    check("serve --listen", "a value is required for '--listen <ADDRESS>'");
    check("revoke --token % --store redis://u:%@h", "'--token <TOKEN>' cannot be used with");
    check("revoke --for %", "invalid value '…' for '--for <TIME>': expected a duration such as 250ms");
    check("revoke --for 5%", "invalid value '…' for '--for <TIME>': expected a duration such as 250ms");
    check("tail http://h -H %", "invalid value '…' for '--header <HEADER>': a header has the form");
    check("tail %", "invalid value '…' for '<URL>'");
    check("tail http://h --count %", "invalid value '…' for '--count <COUNT>'");
    check("policy new x --lang %", "invalid value '…' for '--lang <LANG>'");
    check("policy sign x --key k --sequence=%", "invalid value '…' for '--sequence <SEQUENCE>'");
}
