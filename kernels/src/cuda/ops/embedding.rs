//! Rows of a table by token id.
#![allow(unsafe_code)]

use super::tables::{aligned, rows_in_tiles, threads_for, word};
use super::{
    copy_rows::copy_rows,
    product::{converted, same},
};
use crate::backend::{Backend, Float};
use crate::cpu::embedding::check;
use crate::cuda::{
    Cuda, CudaView, CudaViewMut,
    launch::{Arguments, Launch},
    manifest::Specialisation,
    modules::{Module, Source},
};
use crate::error::Result;

pub(in crate::cuda) const SOURCE: Source =
    Source { file: "embedding.cu", text: include_str!("../../../cuda/embedding.cu") };

pub(in crate::cuda) fn forward<W: Float>(
    cuda: &Cuda,
    width: usize,
    ids: CudaView<'_, u32>,
    table: CudaView<'_, W>,
    out: CudaViewMut<'_, f32>,
) -> Result<()> {
    check("embedding", width, &cuda.values(ids)?, ("table", table.len()), ("out", out.len()))?;
    let Some(table) = same::<W, f32>(table) else {
        let mut rows = cuda.uninitialized::<W>(out.len())?;
        let to = rows.view_mut(0..out.len());
        // SAFETY: `check` saw that the table has the rows and that the result has one for each id.
        unsafe { copy_rows(cuda, (ids.len(), width), (table, Some(ids)), (&to, None))? };
        return converted(cuda, to.shared(), &out);
    };
    let aligned = aligned(width, [table.address(), out.address()]);
    let arguments = Arguments::new().read(ids).read(table).write(&out).value(word(width)).value(aligned);
    // SAFETY: a block for each id; `check` saw that the table has its row and `out` one for each id.
    unsafe {
        cuda.launch(Module::new(&SOURCE), "embedding", Launch::new(ids.len(), threads_for(width)), &arguments)
    }
}

pub(in crate::cuda) fn backward(
    cuda: &Cuda,
    width: usize,
    ids: CudaView<'_, u32>,
    d_out: CudaView<'_, f32>,
    d_table: CudaViewMut<'_, f32>,
) -> Result<()> {
    let values = cuda.values(ids)?;
    check("embedding_backward", width, &values, ("d_table", d_table.len()), ("d_out", d_out.len()))?;
    // A stable sort: the tokens of an id stay in their order.
    let mut order: Vec<u32> = (0..word(values.len())).collect();
    order.sort_by_key(|token| values[*token as usize]);
    let id = |at: usize| values[order[at] as usize];
    let mut starts: Vec<u32> =
        (0..order.len()).filter(|at| *at == 0 || id(*at) != id(at - 1)).map(word).collect();
    let distinct = starts.len();
    starts.push(word(order.len()));
    let words = cuda.upload(&[starts, order].concat())?;
    let (launch, tiles) = rows_in_tiles(distinct, width);
    let arguments = Arguments::new()
        .read(words.view(0..distinct + 1))
        .read(words.view(distinct + 1..words.len()))
        .read(ids)
        .read(d_out)
        .write(&d_table)
        .value(word(width))
        .value(tiles)
        .value(aligned(width, [d_out.address(), d_table.address()]));
    // SAFETY: as above; the tables hold positions of `ids`.
    unsafe { cuda.launch(Module::new(&SOURCE), "embedding_backward", launch, &arguments) }
}

pub(in crate::cuda) fn manifest() -> Vec<Specialisation> {
    ["embedding", "embedding_backward"]
        .map(|kernel| Specialisation::new(Module::new(&SOURCE), kernel).without_spills())
        .into()
}
