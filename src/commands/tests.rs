use clap::CommandFactory;

use super::*;
use crate::config::Config;
use crate::config::layers::file;
use crate::config::raw::Raw;
use crate::golden::golden;

#[test]
fn golden_help() {
    let mut cli = Cli::command();
    cli.build();
    let mut text = cli.render_long_help().to_string();
    let shown = cli.get_subcommands().filter(|c| c.get_name() != "help" && !c.is_hide_set());
    let names: Vec<String> = shown.map(|c| c.get_name().to_owned()).collect();
    for name in names {
        let command = cli.find_subcommand_mut(&name).expect("a command");
        text += &format!("\n\n==== tidegate {name} ====\n{}", command.render_long_help());
    }
    golden("help.txt", &text);
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
    let config = Config::check(flags.layer().expect("a layer").try_into().expect("options")).expect("valid");
    assert_eq!(
        (config.listen.port(), config.control.port(), config.store.url.to_string()),
        (1, 2, "memory:".to_owned())
    );
    assert!(Cli::try_parse_from(["tidegate", "serve", "--allow-all", "--policy", "x"]).is_err());
}

#[test]
fn what_dev_begins_with_is_valid() {
    let base = file(std::path::Path::new("dev.toml"), include_str!("dev.toml")).expect("a layer");
    let config = Config::check(base.try_into().expect("options")).expect("valid");
    assert_eq!(config.door, crate::config::Door::Example);
    assert!(config.stream.below && config.cors.credentials && config.store.seed.len() == 5);
}
