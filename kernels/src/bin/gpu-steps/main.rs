//! One step of `kernels/gpu-check`, so that a kernel that faults or never ends takes no other step with it.
//!
//! ```text
//! gpu-steps list                          names of canaries and of groups of times
//! gpu-steps DEVICE facts                  what the device and its libraries are
//! gpu-steps DEVICE compile                compiles every kernel
//! gpu-steps DEVICE canary KERNEL          a kernel beside the CPU backend, on a tiny shape
//! gpu-steps DEVICE times GROUP [small]    how long operations take
//! ```
//!
//! A device is `cuda:0` or `emulated`. Results are lines on standard output whose fields are separated by tabs:
//! `name KIND NAME`, `fact NAME VALUE`, `canary NAME WORST TOLERANCE MILLIS` and
//! `time NAME MEDIAN P10 P90 RUNS RATE` in milliseconds. The exit status is 0, 1 for a wrong result, and 2 where
//! there is none, with the reason on standard error.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod canary;
mod matrices;
mod numbers;
mod times;

use std::{env, process::ExitCode, time::Instant};

use openclaw_kernels::cuda::{Nvrtc, libraries, manifest};
use openclaw_kernels::{Cuda, KernelError, Result};

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["list"] => {
            list();
            Ok(true)
        }
        [device, "facts"] => facts(device).map(|()| true),
        [device, "compile"] => compile(device).map(|()| true),
        [device, "canary", kernel] => canary::run(device, kernel),
        [device, "times", group] => times::run(device, group, false).map(|()| true),
        [device, "times", group, "small"] => times::run(device, group, true).map(|()| true),
        _ => Err(wrong("gpu-steps", format!("does not know what {:?} is", words.join(" ")))),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

fn wrong(op: &'static str, what: String) -> KernelError {
    KernelError::Argument { op, what }
}

/// The device of this name, and the milliseconds that it took to open.
fn open(device: &str) -> Result<(Cuda, f64)> {
    let start = Instant::now();
    let ordinal = device.strip_prefix("cuda:").and_then(|n| n.parse().ok());
    let cuda = match (device, ordinal) {
        ("emulated", _) => Cuda::emulated(),
        (_, Some(ordinal)) => Cuda::new(ordinal),
        _ => Err(wrong("gpu-steps", format!("{device} is neither cuda:N nor emulated"))),
    }?;
    Ok((cuda, start.elapsed().as_secs_f64() * 1e3))
}

fn list() {
    for kernel in canary::kernels() {
        println!("name\tcanary\t{kernel}");
    }
    for group in times::GROUPS {
        println!("name\ttimes\t{group}");
    }
}

fn facts(device: &str) -> Result<()> {
    let (cuda, millis) = open(device)?;
    let properties = cuda.properties();
    println!(
        "fact\tdevice\t{}, sm_{}, {} multiprocessors",
        properties.name, properties.arch, properties.multiprocessors
    );
    println!("fact\topened in\t{millis:.0} ms");
    if device == "emulated" {
        return Ok(());
    }
    println!("fact\tmemory\t{} GiB", properties.memory_bytes >> 30);
    let libraries = libraries::Libraries::get();
    for (name, library) in
        [("driver", &libraries.driver), ("NVRTC", &libraries.nvrtc), ("cuBLASLt", &libraries.cublas_lt)]
    {
        let told = library.as_ref().map_or_else(Clone::clone, ToString::to_string);
        println!("fact\t{name}\t{told}");
    }
    Ok(())
}

fn compile(device: &str) -> Result<()> {
    if device == "emulated" {
        println!("fact\tcompiled\tnothing: the emulation compiles what it launches");
        return Ok(());
    }
    let arch = open(device)?.0.properties().arch;
    let start = Instant::now();
    let count = manifest::compile_all(Nvrtc::find()?, arch)?;
    println!("fact\tcompiled\t{count} kernels for sm_{arch} in {:.1} s", start.elapsed().as_secs_f32());
    Ok(())
}
