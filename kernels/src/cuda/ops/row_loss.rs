//! Operation 3, 5 and the gradients of 1 and 2: every logit is read once and its gradient written once.
#![allow(unsafe_code)]

use half::bf16;

use super::rows::{Active, Ids, Scale, THREADS, check_ids, is_aligned, module, vector_width};
use crate::backend::Float;
use crate::cuda::{
    Cuda, CudaView, CudaViewMut,
    launch::{Arguments, Launch},
    manifest::Specialisation,
    modules::{Module, Source},
};
use crate::error::{KernelError, Result, expect_len};
use crate::ops::{
    CandidateLoss, ClipRange, GapSide, KlKind, LogitsShape, RowLoss, RowStat, Surrogate, TokenTerm,
    check_logits, check_row_loss,
};

const SOURCE: Source = Source {
    file: "row_loss.cu",
    text: concat!(
        "#line 1 \"softmax.cuh\"\n",
        include_str!("../../../cuda/softmax.cuh"),
        "#line 1 \"row_terms.cuh\"\n",
        include_str!("../../../cuda/row_terms.cuh"),
        "#line 1 \"row_loss.cu\"\n",
        include_str!("../../../cuda/row_loss.cu")
    ),
};

/// The arguments as the device sees them.
pub(super) type Args<'a> = RowLoss<CudaView<'a, f32>, CudaView<'a, i32>>;

/// The first compute capability (times ten) with clusters of blocks.
const CLUSTERS_SINCE: u32 = 90;

/// How a row is laid over the device, by its length, type and the device's generation and by nothing else: so a
/// row's result is the same bits in every batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Layout {
    /// Blocks that share a row.
    cluster: usize,
    /// Vectors of the row that each thread keeps in registers; 0: the row is read twice.
    vectors: usize,
    threads: u32,
    /// Blocks that should fit a multiprocessor at the same time.
    resident_blocks: u32,
}

/// Another layout of the row losses, to be timed beside the usual one; it changes the bits of their results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowLossControl {
    /// The usual layout with fewer registers, so that four blocks fit a multiprocessor.
    FourResident,
    /// One block of so many threads for a row, which is read twice, the second time from the L2 cache.
    ReadTwice {
        /// 256, 512 or 1024.
        threads: u32,
    },
}

impl Layout {
    fn controlled(self, control: Option<RowLossControl>) -> Self {
        match control {
            None => self,
            Some(RowLossControl::FourResident) => Self { resident_blocks: 4, ..self },
            Some(RowLossControl::ReadTwice { threads }) => {
                Self { cluster: 1, vectors: 0, threads, resident_blocks: 1024 / threads }
            }
        }
    }

    /// The layout of rows of `vocab` logits of type `T`.
    fn new<T: Float>(arch: u32, vocab: usize) -> Self {
        /// Registers of a thread that may hold logits while many blocks still share a multiprocessor.
        const FEW: usize = 40;
        const MANY: usize = 64;
        let registers_per_vector = 4;
        let vectors = vocab.div_ceil(vector_width::<T>());
        let per_thread = |cluster: usize| vectors.div_ceil(cluster).div_ceil(THREADS as usize);
        // In bf16 a register holds two logits, whose exponents take twice the time: half the registers keep as
        // many blocks busy.
        let few = FEW / registers_per_vector * size_of::<T>() / size_of::<f32>();
        let cluster = [1, 2, 4, 8, 16].into_iter().find(|cluster| per_thread(*cluster) <= few).unwrap_or(16);
        if arch < CLUSTERS_SINCE || per_thread(cluster) > MANY / registers_per_vector {
            let threads = [256, 512].into_iter().find(|threads| vectors <= 8 * threads).unwrap_or(1024);
            let resident_blocks = 1024 / threads as u32;
            return Self { cluster: 1, vectors: 0, threads: threads as u32, resident_blocks };
        }
        let vectors = per_thread(cluster);
        let resident_blocks = if vectors * registers_per_vector > 20 { 2 } else { 3 };
        Self { cluster, vectors, threads: THREADS, resident_blocks }
    }

    /// The specialisation for logits of type `T`.
    fn specialised<T: Float>(&self, aligned: bool, candidates: bool) -> Module {
        module::<T>(&SOURCE, aligned, self.threads)
            .define("CANDIDATES", u32::from(candidates))
            .define("CLUSTER", self.cluster)
            .define("VECTORS", self.vectors)
            .define("RESIDENT_BLOCKS", self.resident_blocks)
    }

    fn launch<T: Float>(&self, rows: usize, vocab: usize, k: usize) -> Launch {
        const ENTRY_BYTES: usize = 16;
        let share = vocab.div_ceil(vector_width::<T>()).div_ceil(self.cluster);
        let shared_bytes = (k + 1) * ENTRY_BYTES + 4 * k + 4 * share.div_ceil(32);
        Launch::new(rows * self.cluster, self.threads)
            .clusters_of(self.cluster as u32)
            .shared(shared_bytes as u32)
    }
}

pub(in crate::cuda) fn manifest() -> Vec<Specialisation> {
    /// Vocabularies of the models in use, and of the smallest one here.
    const VOCABS: [usize; 6] = [2048, 32_000, 128_256, 129_280, 151_936, 152_064];
    let mut all: Vec<Specialisation> = Vec::new();
    let mut add = |(first, last): (u32, u32), module: Module, aligned: bool, promises: bool| {
        if all.iter().any(|known| known.module == module && known.is_for(first)) {
            return;
        }
        let new = Specialisation::new(module, "row_loss").since_arch(first).until_arch(last);
        let new = if promises { new.without_spills() } else { new };
        all.push(if aligned { new.with_wide_loads(60) } else { new });
    };
    for archs in [(0, CLUSTERS_SINCE - 1), (CLUSTERS_SINCE, 99), (100, u32::MAX)] {
        for vocab in VOCABS {
            for (candidates, aligned) in [(false, true), (false, false), (true, true), (true, false)] {
                let (f32s, bf16s) = (Layout::new::<f32>(archs.0, vocab), Layout::new::<bf16>(archs.0, vocab));
                // With candidates one warp works in f64 and spills. So do, by a few bytes, blocks of compute
                // capability 10.0 that hold four vectors a thread or more.
                let promises = aligned && !candidates;
                add(archs, f32s.specialised::<f32>(aligned, candidates), aligned, promises);
                let tight = archs.0 >= 100 && bf16s.vectors >= 4;
                add(archs, bf16s.specialised::<bf16>(aligned, candidates), aligned, promises && !tight);
            }
        }
    }
    all
}

/// As `Clip` in `row_terms.cuh`.
#[derive(Clone, Copy, Default, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Clip {
    low: f32,
    high: f32,
    dual: f32,
}

impl From<ClipRange> for Clip {
    fn from(clip: ClipRange) -> Self {
        Self { low: clip.low, high: clip.high, dual: clip.dual.unwrap_or(0.0) }
    }
}

/// As `Terms` in `row_terms.cuh`; so are the codes.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Terms {
    scale: Scale,
    token: u32,
    kl: u32,
    candidates: u32,
    k: u32,
    clip: Clip,
    candidate_clip: Clip,
    kl_coef: f32,
    entropy_coef: f32,
    candidate_coef: f32,
    candidate_entropy_coef: f32,
    sign: f32,
    padding: u32,
}

/// The code of gradients that are given, not derived from a loss.
const TOKEN_GIVEN: u32 = 5;

/// What the kernel reads for each row, besides its logits.
#[derive(Clone, Copy)]
struct Inputs<'a> {
    weights: CudaView<'a, f32>,
    targets: CudaView<'a, i32>,
    old: Option<CudaView<'a, f32>>,
    advantages: Option<CudaView<'a, f32>>,
    importance: Option<CudaView<'a, f32>>,
    reference: Option<CudaView<'a, f32>>,
    ids: Option<CudaView<'a, i32>>,
    slot_old: Option<CudaView<'a, f32>>,
    slot_advantages: Option<CudaView<'a, f32>>,
    slot_weights: Option<CudaView<'a, f32>>,
}

impl<'a> Inputs<'a> {
    fn new(weights: CudaView<'a, f32>, targets: CudaView<'a, i32>) -> Self {
        Self {
            weights,
            targets,
            old: None,
            advantages: None,
            importance: None,
            reference: None,
            ids: None,
            slot_old: None,
            slot_advantages: None,
            slot_weights: None,
        }
    }
}

fn terms<'a>(temperature: f32, loss: &Args<'a>) -> (Terms, Inputs<'a>) {
    let mut inputs = Inputs::new(loss.weights, loss.targets);
    let mut terms = Terms {
        scale: Scale::new(temperature),
        entropy_coef: loss.entropy_coef,
        ..bytemuck::Zeroable::zeroed()
    };
    match &loss.token {
        TokenTerm::None => {}
        TokenTerm::CrossEntropy => terms.token = 1,
        TokenTerm::Policy(policy) => {
            let (token, old) = match policy.surrogate {
                Surrogate::Ppo { old_logprobs } => (2, old_logprobs),
                Surrogate::Cispo { old_logprobs } => (3, old_logprobs),
                Surrogate::Gspo { ratios } => (4, ratios),
            };
            terms.token = token;
            terms.clip = policy.clip.into();
            inputs.old = Some(old);
            inputs.advantages = Some(policy.advantages);
            inputs.importance = policy.importance;
        }
    }
    if let Some(kl) = &loss.kl {
        terms.kl = match kl.kind {
            KlKind::K1 => 1,
            KlKind::K2 => 2,
            KlKind::K3 => 3,
            KlKind::LowVar => 4,
        };
        terms.kl_coef = kl.coef;
        inputs.reference = Some(kl.reference);
    }
    if let Some(term) = &loss.candidates {
        terms.k = term.k as u32;
        terms.candidate_coef = term.coef;
        inputs.ids = Some(term.ids);
        match term.loss {
            CandidateLoss::ReverseKl { teacher_logprobs, entropy_coef } => {
                terms.candidates = 1;
                terms.candidate_entropy_coef = entropy_coef;
                inputs.slot_old = Some(teacher_logprobs);
            }
            CandidateLoss::Policy { advantages, weights, old_logprobs, clip } => {
                terms.candidates = 2;
                terms.candidate_clip = clip.into();
                inputs.slot_old = Some(old_logprobs);
                inputs.slot_advantages = Some(advantages);
                inputs.slot_weights = Some(weights);
            }
        }
    }
    (terms, inputs)
}

/// Checks the lengths, clips and ids of a row loss and what this device can do of it.
pub(super) fn check(
    cuda: &Cuda,
    op: &'static str,
    (rows, vocab): (usize, usize),
    loss: &Args<'_>,
) -> Result<()> {
    /// Candidates whose entries fit the static limit of shared memory beside the map of a long row.
    const MOST_CANDIDATES: usize = 1024;
    check_row_loss(op, rows, loss)?;
    let active = Active { weights: loss.weights, targets: loss.targets };
    let targets = Ids { what: "targets", ids: loss.targets, k: 1 };
    let Some(candidates) = &loss.candidates else {
        return check_ids(cuda, op, vocab, &[targets], Some(active));
    };
    if candidates.k > MOST_CANDIDATES {
        let what =
            format!("{} candidates of each row are given, this device takes {MOST_CANDIDATES}", candidates.k);
        return Err(KernelError::Argument { op, what });
    }
    let candidates = Ids { what: "candidates", ids: candidates.ids, k: candidates.k };
    check_ids(cuda, op, vocab, &[targets, candidates], Some(active))
}

/// What a launch writes besides gradients.
pub(super) struct RowResults<'a> {
    /// Indexed as the loss is.
    pub(super) stats: &'a CudaViewMut<'a, RowStat>,
    /// Whether each row of logits has a gradient.
    pub(super) live: Option<&'a CudaViewMut<'a, u32>>,
}

pub(in crate::cuda) fn row_loss<T: Float>(
    cuda: &Cuda,
    shape: LogitsShape,
    loss: Args<'_>,
    logits: Option<CudaView<'_, T>>,
    d_logits: CudaViewMut<'_, T>,
    stats: CudaViewMut<'_, RowStat>,
) -> Result<()> {
    check_logits("row_loss", "d_logits", shape, d_logits.len())?;
    if let Some(logits) = logits {
        expect_len("row_loss", "logits", logits.len(), d_logits.len())?;
    }
    check(cuda, "row_loss", (shape.rows, shape.vocab), &loss)?;
    expect_len("row_loss", "stats", stats.len(), shape.rows)?;
    let results = RowResults { stats: &stats, live: None };
    let terms = terms(shape.temperature, &loss);
    launch(cuda, shape, terms, None, (logits.unwrap_or(d_logits.shared()), &d_logits), Some(results))
}

/// A row loss in place, with checked arguments. `rows` names the row of the loss for each row of logits.
pub(super) fn in_place<T: Float>(
    cuda: &Cuda,
    shape: LogitsShape,
    loss: &Args<'_>,
    rows: Option<CudaView<'_, u32>>,
    logits: &CudaViewMut<'_, T>,
    results: RowResults<'_>,
) -> Result<()> {
    let (terms, inputs) = terms(shape.temperature, loss);
    launch(cuda, shape, (terms, inputs), rows, (logits.shared(), logits), Some(results))
}

fn launch<T: Float>(
    cuda: &Cuda,
    shape: LogitsShape,
    (terms, inputs): (Terms, Inputs<'_>),
    rows: Option<CudaView<'_, u32>>,
    (logits, gradients): (CudaView<'_, T>, &CudaViewMut<'_, T>),
    results: Option<RowResults<'_>>,
) -> Result<()> {
    let layout = Layout::new::<T>(cuda.properties().arch, shape.vocab).controlled(cuda.row_loss_control());
    let aligned = [logits.address(), gradients.address()].iter().all(|at| is_aligned::<T>(*at, shape.stride));
    let arguments = Arguments::new()
        .read(logits)
        .write(gradients)
        .value(shape.stride as u64)
        .value(shape.vocab as u32)
        .value(terms)
        .read_or_null(rows)
        .read(inputs.targets)
        .read_or_null(inputs.ids)
        .read(inputs.weights)
        .read_or_null(inputs.old)
        .read_or_null(inputs.advantages)
        .read_or_null(inputs.importance)
        .read_or_null(inputs.reference)
        .read_or_null(inputs.slot_old)
        .read_or_null(inputs.slot_advantages)
        .read_or_null(inputs.slot_weights)
        .write_or_null(results.as_ref().map(|results| results.stats))
        .write_or_null(results.as_ref().and_then(|results| results.live));
    let launch = layout.launch::<T>(shape.rows, shape.vocab, terms.k as usize);
    // SAFETY: a cluster per row reads and writes `vocab` logits from its stride on; ids of active rows are below
    // `vocab`, and the lengths of all other views are checked.
    unsafe { cuda.launch(layout.specialised::<T>(aligned, terms.k > 0), "row_loss", launch, &arguments) }
}

pub(in crate::cuda) fn logprob_backward<T: Float>(
    cuda: &Cuda,
    shape: LogitsShape,
    logits: Option<CudaView<'_, T>>,
    targets: CudaView<'_, i32>,
    d_logprobs: CudaView<'_, f32>,
    d_entropy: Option<CudaView<'_, f32>>,
    d_logits: CudaViewMut<'_, T>,
) -> Result<()> {
    backward(cuda, shape, logits, targets, (d_logprobs, 1.0), d_entropy, d_logits)
}

pub(in crate::cuda) fn logprob_gap_backward<T: Float>(
    cuda: &Cuda,
    shape: LogitsShape,
    side: GapSide,
    logits: Option<CudaView<'_, T>>,
    targets: CudaView<'_, i32>,
    d_gap: CudaView<'_, f32>,
    d_logits: CudaViewMut<'_, T>,
) -> Result<()> {
    let sign = match side {
        GapSide::Student => -1.0,
        GapSide::Teacher => 1.0,
    };
    backward(cuda, shape, logits, targets, (d_gap, sign), None, d_logits)
}

/// The gradient whose derivatives by log-probs are `sign` times `d_logprobs`.
fn backward<T: Float>(
    cuda: &Cuda,
    shape: LogitsShape,
    logits: Option<CudaView<'_, T>>,
    targets: CudaView<'_, i32>,
    (d_logprobs, sign): (CudaView<'_, f32>, f32),
    d_entropy: Option<CudaView<'_, f32>>,
    d_logits: CudaViewMut<'_, T>,
) -> Result<()> {
    const OP: &str = "logprob_backward";
    check_logits(OP, "d_logits", shape, d_logits.len())?;
    if let Some(logits) = logits {
        expect_len(OP, "logits", logits.len(), d_logits.len())?;
    }
    expect_len(OP, "targets", targets.len(), shape.rows)?;
    expect_len(OP, "d_logprobs", d_logprobs.len(), shape.rows)?;
    if let Some(d_entropy) = d_entropy {
        expect_len(OP, "d_entropy", d_entropy.len(), shape.rows)?;
    }
    check_ids(cuda, OP, shape.vocab, &[Ids { what: "targets", ids: targets, k: 1 }], None)?;
    let terms = Terms {
        scale: Scale::new(shape.temperature),
        token: TOKEN_GIVEN,
        sign,
        ..bytemuck::Zeroable::zeroed()
    };
    let inputs = Inputs { importance: d_entropy, ..Inputs::new(d_logprobs, targets) };
    launch(cuda, shape, (terms, inputs), None, (logits.unwrap_or(d_logits.shared()), &d_logits), None)
}
