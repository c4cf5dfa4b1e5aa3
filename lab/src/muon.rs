//! Muon (K. Jordan and others, 2024): the momentum of each hidden matrix is made orthogonal before it is applied, so that no
//! direction of it learns slowly because another is large. Embeddings and vectors take AdamW.
//!
//! On the host, for models of a few million parameters: a step costs some 3 products of the matrix with itself, five times.

use std::{
    ops::Range,
    panic::resume_unwind,
    sync::atomic::{AtomicUsize, Ordering},
};

use openclaw_kernels::{
    Backend, Cpu, KernelError,
    ops::{Matmul, MatrixLayout},
};
use openclaw_model::{Objective, ParameterLayout, StepReport, TrainSequence, Trainer, TrainerState};

/// Decay of the matrices' momentum, with Nesterov's look ahead (published).
const MOMENTUM: f32 = 0.95;
/// Coefficients of the Newton-Schulz iteration (published).
const QUINTIC: (f32, f32, f32) = (3.4445, -4.775, 2.0315);
const ITERATIONS: usize = 5;

/// The optimizer's state.
pub struct Muon {
    /// One thread each: matrices are shared out among them.
    cpus: Vec<Cpu>,
    matrices: Vec<Matrix>,
    /// Of the parameters that take AdamW; the matrices' places are unused.
    first: Vec<f32>,
    second: Vec<f32>,
    momentum: Vec<f32>,
    step: u32,
    /// Learning rate of the matrices, as a share of the one of all others.
    pub ratio: f32,
    /// Decoupled weight decay of matrices.
    pub weight_decay: f32,
    /// Decay rates of AdamW.
    pub betas: (f32, f32),
}

/// By the places of their matrices.
type Directions = Vec<(usize, Vec<f32>)>;

#[derive(Clone, Debug)]
struct Matrix {
    rows: usize,
    columns: usize,
    range: Range<usize>,
}

impl Muon {
    /// With empty moments.
    pub fn new(
        layout: &ParameterLayout,
        cpus: Vec<Cpu>,
        ratio: f32,
        weight_decay: f32,
        betas: (f32, f32),
    ) -> Self {
        let is_hidden = |name: &str| !name.contains("embed_tokens") && !name.contains("lm_head");
        let hidden = layout.parameters.iter().filter(|p| p.shape.len() == 2 && is_hidden(&p.name));
        let matrices = hidden
            .map(|p| Matrix { rows: p.shape[0], columns: p.shape[1], range: p.range.clone() })
            .collect();
        let empty = || vec![0.0; layout.len()];
        Self {
            cpus,
            matrices,
            first: empty(),
            second: empty(),
            momentum: empty(),
            step: 0,
            ratio,
            weight_decay,
            betas,
        }
    }

    /// Accumulates the batch's gradients and takes one step with this learning rate.
    pub fn step<B: Backend>(
        &mut self,
        trainer: &mut Trainer<B>,
        batch: &[TrainSequence],
        learning_rate: f32,
        grad_clip: f32,
    ) -> Result<StepReport, KernelError> {
        let backend = trainer.transformer().backend.clone();
        let report = backend.scope(|| trainer.accumulate(batch, &Objective::CrossEntropy))?;
        let mut grads = trainer.gradients()?;
        let mut weights = trainer.weights()?.to_host(trainer.transformer())?;
        let grad_norm = grads.iter().map(|g| f64::from(*g) * f64::from(*g)).sum::<f64>().sqrt();
        let is_finite = grad_norm.is_finite() && report.loss.is_finite();
        if is_finite {
            self.step += 1;
            let scale = (f64::from(grad_clip) / grad_norm).min(1.0) as f32;
            grads.iter_mut().for_each(|g| *g *= scale);
            self.update(&mut weights, &grads, learning_rate)?;
        }
        // Gradients are empty again with it.
        let empty = vec![0.0; weights.len()];
        trainer.restore(&TrainerState { step: self.step, weights, first: empty.clone(), second: empty })?;
        Ok(StepReport { step: self.step, grad_norm, skipped: !is_finite, ..report })
    }

    fn update(&mut self, weights: &mut [f32], grads: &[f32], learning_rate: f32) -> Result<(), KernelError> {
        let ahead: Vec<Vec<f32>> = self
            .matrices
            .iter()
            .map(|Matrix { range, .. }| {
                let momentum = self.momentum[range.clone()].iter_mut().zip(&grads[range.clone()]);
                let ahead = momentum.map(|(momentum, grad)| {
                    *momentum = MOMENTUM * *momentum + (1.0 - MOMENTUM) * grad;
                    MOMENTUM * *momentum + (1.0 - MOMENTUM) * grad
                });
                ahead.collect()
            })
            .collect();
        let next = AtomicUsize::new(0);
        let work = |cpu: &Cpu| {
            let mut made = Vec::new();
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let Some(Matrix { rows, columns, .. }) = self.matrices.get(at) else { return Ok(made) };
                made.push((at, cpu.scope(|| orthogonal(cpu, &ahead[at], *rows, *columns))?));
            }
        };
        let work = &work;
        let directions: Result<Vec<Directions>, KernelError> = std::thread::scope(|scope| {
            let running: Vec<_> = self.cpus.iter().map(|cpu| scope.spawn(move || work(cpu))).collect();
            running
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)))
                .collect()
        });
        for (at, direction) in directions?.into_iter().flatten() {
            let Matrix { rows, columns, range } = &self.matrices[at];
            // As large as AdamW's steps are (Moonshot's scale), so that one rate suits both.
            let rate = learning_rate * self.ratio * 0.2 * (*rows.max(columns) as f32).sqrt();
            for (weight, direction) in weights[range.clone()].iter_mut().zip(direction) {
                *weight -= rate * direction + learning_rate * self.weight_decay * *weight;
            }
        }
        let (b1, b2) = self.betas;
        let (c1, c2) = (1.0 - b1.powi(self.step as i32), 1.0 - b2.powi(self.step as i32));
        let hidden = self.matrices.iter().map(|matrix| (matrix.range.start, matrix.range.end));
        let mut at = 0;
        for (start, end) in hidden.chain([(weights.len(), weights.len())]) {
            for i in at..start {
                let grad = grads[i];
                self.first[i] = b1 * self.first[i] + (1.0 - b1) * grad;
                self.second[i] = b2 * self.second[i] + (1.0 - b2) * grad * grad;
                weights[i] -= learning_rate * (self.first[i] / c1) / ((self.second[i] / c2).sqrt() + 1e-8);
            }
            at = end;
        }
        Ok(())
    }
}

/// The nearest orthogonal matrix, roughly: singular values come to lie between .7 and 1.2.
fn orthogonal(cpu: &Cpu, matrix: &[f32], rows: usize, columns: usize) -> Result<Vec<f32>, KernelError> {
    let norm = matrix.iter().map(|x| x * x).sum::<f32>().sqrt().max(1e-7);
    let is_tall = rows > columns;
    let (m, n) = if is_tall { (columns, rows) } else { (rows, columns) };
    let mut x: Vec<f32> = match is_tall {
        false => matrix.iter().map(|x| x / norm).collect(),
        true => (0..m * n).map(|at| matrix[(at % n) * columns + at / n] / norm).collect(),
    };
    let product = |shape: Matmul, a: &[f32], b: &[f32]| -> Result<Vec<f32>, KernelError> {
        let (a, b) = (cpu.upload(a)?, cpu.upload(b)?);
        let mut c = cpu.zeros::<f32>(shape.m * shape.n)?;
        let len = |buffer: &_| Backend::len(cpu, buffer);
        let (a_len, b_len) = (len(&a), len(&b));
        cpu.matmul(
            shape,
            cpu.view(&a, 0..a_len),
            cpu.view(&b, 0..b_len),
            cpu.view_mut(&mut c, 0..shape.m * shape.n),
        )?;
        cpu.download(cpu.view(&c, 0..shape.m * shape.n))
    };
    let of = |m, n, k, a, b| Matmul { m, n, k, a, b, c_row: n, accumulate: false };
    let (a, b, c) = QUINTIC;
    for _ in 0..ITERATIONS {
        let gram = product(of(m, m, n, MatrixLayout::rows(n), MatrixLayout::transposed(n)), &x, &x)?;
        let square = product(of(m, m, m, MatrixLayout::rows(m), MatrixLayout::rows(m)), &gram, &gram)?;
        let mixed: Vec<f32> = gram.iter().zip(square).map(|(gram, square)| b * gram + c * square).collect();
        let turned = product(of(m, n, m, MatrixLayout::rows(m), MatrixLayout::rows(n)), &mixed, &x)?;
        x.iter_mut().zip(turned).for_each(|(x, turned)| *x = a * *x + turned);
    }
    Ok(match is_tall {
        false => x,
        true => (0..rows * columns).map(|at| x[(at % columns) * n + at / columns]).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directions_become_orthogonal_and_keep_their_side() {
        let cpu = Cpu::new("muon", 1).expect("threads");
        let mut dice = openclaw_environments::dice::Dice::new(1);
        for (rows, columns) in [(6, 20), (20, 6), (10, 16)] {
            let matrix: Vec<f32> = (0..rows * columns).map(|_| dice.between(-50, 50) as f32 / 9.0).collect();
            let found = orthogonal(&cpu, &matrix, rows, columns).expect("a product");
            // Of the shorter side, every two are apart and each is about of length one.
            let (m, n) = (rows.min(columns), rows.max(columns));
            let at = |i: usize, j: usize| {
                if rows <= columns { found[i * columns + j] } else { found[j * columns + i] }
            };
            for i in 0..m {
                for j in 0..m {
                    let dot: f32 = (0..n).map(|k| at(i, k) * at(j, k)).sum();
                    let (low, high) = if i == j { (0.4, 1.6) } else { (-0.35, 0.35) };
                    assert!((low..high).contains(&dot), "{rows}x{columns} {i} {j}: {dot}");
                }
            }
            let along: f32 = found.iter().zip(&matrix).map(|(found, given)| found * given).sum();
            assert!(along > 0.0);
        }
    }
}
