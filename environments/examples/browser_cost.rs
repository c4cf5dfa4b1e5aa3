//! What pages in a browser cost: `cargo run --release -p openclaw-environments --example browser_cost`.
#![allow(clippy::print_stdout, reason = "it is what this program is for")]

use std::{
    fs,
    time::{Duration, Instant},
};

use openclaw_environments::{
    browser::{Browsers, Settings},
    world::{Action, Call, Environment, Split, World, WorldError},
};
use serde_json::json;

const STEPS: u32 = 20;

fn main() -> Result<(), WorldError> {
    for (what, screenshots, width, height) in [
        ("list and screenshot, 480x360", true, 480, 360),
        ("list alone, 480x360", false, 480, 360),
        ("list and screenshot, 1280x800", true, 1280, 800),
    ] {
        let settings = Settings { screenshots, width, height, ..Settings::default() };
        let browsers = Browsers::new(settings)?;
        let mut world = browsers.open()?;
        let first = timed(|| begin(&browsers, &mut *world, 0))?;
        let next = timed(|| (1..5).try_for_each(|number| begin(&browsers, &mut *world, number)))? / 4;
        let scroll = || step(&mut *world, "scroll", json!({"direction": "down"}));
        let mut steps = scroll;
        let each = timed(|| (0..STEPS).try_for_each(|_| steps()))? / STEPS;
        println!("{what}: first episode {first:.2?}, another {next:.0?}, step {each:.0?}");
    }
    let browsers = Browsers::new(Settings::default())?;
    let mut worlds = Vec::new();
    println!("memory of one browser, shared pages counted once:");
    for count in 1..=8 {
        let mut world = browsers.open()?;
        begin(&browsers, &mut *world, count)?;
        worlds.push(world);
        println!("{count} episodes: {} MB", memory_mb());
    }
    drop(worlds);
    let one_each = Browsers::new(Settings { contexts: 1, ..Settings::default() })?;
    let mut worlds = Vec::new();
    for count in 1..=8 {
        let mut world = one_each.open()?;
        begin(&one_each, &mut *world, count)?;
        worlds.push(world);
    }
    println!("8 browsers with an episode each: {} MB", memory_mb());
    Ok(())
}

fn timed(mut act: impl FnMut() -> Result<(), WorldError>) -> Result<Duration, WorldError> {
    let began = Instant::now();
    act()?;
    Ok(began.elapsed())
}

fn begin(browsers: &Browsers, world: &mut dyn World, number: u64) -> Result<(), WorldError> {
    world.reset(&browsers.task(Split::Train, number)?).map(drop)
}

fn step(world: &mut dyn World, name: &str, arguments: serde_json::Value) -> Result<(), WorldError> {
    let arguments = arguments.as_object().cloned().unwrap_or_default();
    let call = Call { id: "c".into(), name: name.into(), arguments };
    world.step(&Action::Calls(vec![call])).map(drop)
}

/// Of all browsers on this machine.
fn memory_mb() -> u64 {
    let mut kilobytes = 0;
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if !String::from_utf8_lossy(&line).contains("chromium/chromium") {
            continue;
        }
        let rollup = fs::read_to_string(entry.path().join("smaps_rollup")).unwrap_or_default();
        let pss = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
        let words = pss.and_then(|pss| pss.split_whitespace().next());
        kilobytes += words.and_then(|number| number.parse::<u64>().ok()).unwrap_or(0);
    }
    kilobytes / 1024
}
