//! What moving bytes and asking for nothing cost.

use std::time::Instant;

use openclaw_kernels::{Backend, Result};

use super::{Timer, Work};
use crate::numbers::{all, all_mut, numbers};

pub fn copies(timer: &Timer<'_>) -> Result<()> {
    let cuda = timer.cuda;
    let len = timer.size(64 << 20, 1 << 16);
    let bytes = len * size_of::<f32>();
    let host = numbers(len, 1);
    let (mut up, mut other) = (cuda.zeros::<f32>(len)?, cuda.zeros::<f32>(len)?);
    let (mut uploads, mut downloads) = (Vec::new(), Vec::new());
    for _ in 0..timer.size(6, 2) {
        let start = Instant::now();
        cuda.write(all_mut(cuda, &mut up), &host)?;
        cuda.synchronize()?;
        uploads.push(start.elapsed().as_secs_f64() * 1e3);
        let start = Instant::now();
        let back = cuda.download(all(cuda, &up))?;
        downloads.push(start.elapsed().as_secs_f64() * 1e3);
        drop(back);
    }
    timer.print(&format!("upload of {bytes} bytes"), &uploads, Work::Bytes(bytes));
    timer.print(&format!("download of {bytes} bytes"), &downloads, Work::Bytes(bytes));
    timer.time(
        &format!("copy of {bytes} bytes on the device"),
        Work::Bytes(2 * bytes),
        || Ok(()),
        || cuda.copy(all_mut(cuda, &mut other), all(cuda, &up)),
    )?;
    timer.time(
        &format!("fill of {bytes} bytes"),
        Work::Bytes(bytes),
        || Ok(()),
        || cuda.fill(all_mut(cuda, &mut other), 1.0),
    )
}

/// The smallest kernel, many times: the device's time, and the host's to ask for them.
pub fn launches(timer: &Timer<'_>) -> Result<()> {
    let (cuda, count) = (timer.cuda, timer.size(1000, 20));
    let mut one = cuda.zeros::<f32>(1)?;
    let mut asked = Vec::new();
    timer.time(
        &format!("{count} empty launches"),
        Work::None,
        || cuda.synchronize(),
        || {
            let start = Instant::now();
            for _ in 0..count {
                cuda.fill(all_mut(cuda, &mut one), 1.0)?;
            }
            asked.push(start.elapsed().as_secs_f64() * 1e3);
            Ok(())
        },
    )?;
    timer.print(&format!("{count} empty launches, until the host had asked"), &asked, Work::None);
    Ok(())
}
