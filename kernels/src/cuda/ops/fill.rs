//! One value everywhere.
#![allow(unsafe_code)]

use crate::backend::{Backend, Element};
use crate::cuda::{
    Cuda, CudaViewMut,
    launch::{Arguments, Launch},
    manifest::Specialisation,
    modules::{Module, Source},
};
use crate::error::Result;

const SOURCE: Source = Source { file: "fill.cu", text: include_str!("../../../cuda/fill.cu") };
const THREADS: u32 = 256;

pub(in crate::cuda) fn fill<T: Element>(cuda: &Cuda, target: CudaViewMut<'_, T>, value: T) -> Result<()> {
    let (len, arguments) = (target.len(), Arguments::new().write(&target));
    let bytes = bytemuck::bytes_of(&value);
    let (kernel, arguments) = match *bytes {
        [a, b] => ("fill_2", arguments.value(u16::from_ne_bytes([a, b]))),
        [a, b, c, d] => ("fill_4", arguments.value(u32::from_ne_bytes([a, b, c, d]))),
        _ => return cuda.write(target, &vec![value; len]),
    };
    let launch = Launch::new(len.div_ceil(THREADS as usize), THREADS);
    // SAFETY: one thread for each element.
    unsafe { cuda.launch(Module::new(&SOURCE), kernel, launch, &arguments.value(len as u64)) }
}

pub(in crate::cuda) fn manifest() -> Vec<Specialisation> {
    ["fill_2", "fill_4"]
        .map(|kernel| Specialisation::new(Module::new(&SOURCE), kernel).without_spills())
        .into()
}
