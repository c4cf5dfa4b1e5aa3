//! How long operations take on the device alone, without another library beside them.

mod losses;
mod memory;
mod transformer;

use openclaw_kernels::{Cuda, Result};

use crate::{open, wrong};

/// What is timed, the most valuable first.
pub const GROUPS: [&str; 13] = [
    "logprob",
    "policy",
    "distill",
    "gap",
    "control-resident",
    "control-twice-1024",
    "control-twice-512",
    "attention",
    "paged-decode",
    "gemm",
    "adamw",
    "copies",
    "launch",
];

/// Runs a group, `small` where the times are to mean nothing.
pub fn run(device: &str, group: &str, small: bool) -> Result<()> {
    let (cuda, opened) = open(device)?;
    let timer = Timer { cuda: &cuda, small };
    match group {
        "logprob" => losses::logprob(&timer),
        "gap" => losses::gap(&timer),
        "policy" => losses::policy(&timer, None),
        "distill" => losses::distill(&timer),
        "control-resident" | "control-twice-1024" | "control-twice-512" => {
            losses::policy(&timer, Some(group))
        }
        "attention" => transformer::attention(&timer),
        "paged-decode" => transformer::paged_decode(&timer),
        "gemm" => transformer::gemm(&timer),
        "adamw" => transformer::adamw(&timer),
        "copies" => memory::copies(&timer),
        "launch" => {
            timer.print("open the device", &[opened], Work::None);
            memory::launches(&timer)
        }
        _ => Err(wrong("times", format!("there is no group {group}"))),
    }
}

/// What an operation moves or computes.
#[derive(Clone, Copy)]
pub enum Work {
    None,
    Bytes(usize),
    /// Multiplications and additions.
    Operations(f64),
}

/// Takes and tells times.
pub struct Timer<'a> {
    pub cuda: &'a Cuda,
    pub small: bool,
}

impl Timer<'_> {
    /// `full`, or `small` where times mean nothing.
    pub fn size<T>(&self, full: T, small: T) -> T {
        if self.small { small } else { full }
    }

    /// The device's own time for `run`, after `prepare`, which is not counted: several times, at most for some seconds.
    pub fn time(
        &self,
        name: &str,
        work: Work,
        mut prepare: impl FnMut() -> Result<()>,
        mut run: impl FnMut() -> Result<()>,
    ) -> Result<()> {
        const RUNS: usize = 40;
        const MILLIS: f64 = 1500.0;
        let (warm_ups, runs) = self.size((3, RUNS), (1, 2));
        let mut times = Vec::with_capacity(runs);
        for i in 0..warm_ups + runs {
            prepare()?;
            let ((), millis) = self.cuda.millis(&mut run)?;
            if i >= warm_ups {
                times.push(f64::from(millis));
            }
            if times.len() >= 5 && times.iter().sum::<f64>() > MILLIS {
                break;
            }
        }
        self.print(name, &times, work);
        Ok(())
    }

    /// Prints the median and the tenth and ninetieth percentile of milliseconds, and the rate that the median is.
    pub fn print(&self, name: &str, millis: &[f64], work: Work) {
        let mut sorted = millis.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at = |part: usize| sorted[(sorted.len() - 1) * part / 10];
        let median = at(5);
        let rate = match work {
            Work::None => String::new(),
            Work::Bytes(bytes) => format!("{:.1} GB/s", bytes as f64 / median / 1e6),
            Work::Operations(operations) => format!("{:.2} TFLOP/s", operations / median / 1e9),
        };
        println!("time\t{name}\t{median:.4}\t{:.4}\t{:.4}\t{}\t{rate}", at(1), at(9), sorted.len());
    }
}
