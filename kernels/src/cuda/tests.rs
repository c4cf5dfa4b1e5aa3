//! What the device layer promises, on the emulation.
#![allow(unsafe_code)]

use half::bf16;

use super::launch::{Arguments, Launch};
use super::*;
use crate::error::KernelError;
use crate::ops::MatrixLayout;

/// An emulated device, where there is a compiler for it; fails where everything must run.
pub(crate) fn emulated_or_skip() -> Option<Cuda> {
    match Cuda::emulated() {
        Ok(cuda) => Some(cuda),
        Err(error) => {
            assert!(std::env::var_os("OPENCLAW_REQUIRE_ALL").is_none(), "{error}");
            eprintln!("skipped: {error}");
            None
        }
    }
}

fn no_compiler() -> bool {
    emulated_or_skip().is_none()
}

fn emulated(seed: u64) -> Cuda {
    Cuda::emulated_as(90, seed, u64::MAX).expect("a test asks for a compiler first")
}

const SOURCE: Source = Source {
    file: "tests.cu",
    text: r#"
KERNEL(reversed, (256), const float* x, float* out) {
  SHARED(float, kept, [256]);
  kept[threadIdx.x] = x[threadIdx.x];
#ifndef WITHOUT_BARRIER
  __syncthreads();
#endif
  out[threadIdx.x] = kept[255 - threadIdx.x];
}
KERNEL(used_again, (64), const float* x, float* out) {
  SHARED(float, kept, [1]);
  for (int i = 0; i < 8; i++) {
    if (threadIdx.x == 0) kept[0] = x[i];
    __syncthreads();
    out[i * 64 + threadIdx.x] = kept[0];
#ifndef WITHOUT_BARRIER
    __syncthreads();
#endif
  }
}
KERNEL(lonely, (64), float* out) {
  if (threadIdx.x != 37) __syncthreads();
  out[threadIdx.x] = 1.0f;
}
KERNEL(half_a_shuffle, (64), float* out) {
  if (threadIdx.x < 16) out[threadIdx.x] = __shfl_xor_sync(ALL_LANES, 1.0f, 1);
}
KERNEL(beyond, (64), float* out, u32 at) { out[at] = 1.0f; }
KERNEL(beyond_shared, (64), float* out) {
  SHARED(float, kept, [64]);
  kept[threadIdx.x + 1] = 1.0f;
  __syncthreads();
  out[threadIdx.x] = kept[threadIdx.x];
}
KERNEL(beyond_dynamic, (64), float* out) {
  DYNAMIC_SHARED(float, kept);
  kept[threadIdx.x] = 1.0f;
}
KERNEL(wide, (64), const float* x, uint4* out) { out[0] = load_constant((const uint4*)(x + 1)); }
KERNEL(mixed, (64), const float* x, u32 n, float scale, float* out) { out[n] = x[n] * scale; }
KERNEL(block_totals, (256), const float* x, float* sums, float* most) {
  float sum = block_sum<256>(x[blockIdx.x * 256 + threadIdx.x]);
  float max = block_max<256>(x[blockIdx.x * 256 + threadIdx.x]);
  if (threadIdx.x == 255) {
    sums[blockIdx.x] = sum;
    most[blockIdx.x] = max;
  }
}
KERNEL(dynamic, (64), float* out, u32 n) {
  DYNAMIC_SHARED(float, kept);
  for (u32 i = threadIdx.x; i < n; i += 64) kept[i] = (float)i;
  __syncthreads();
  if (threadIdx.x == 0) out[0] = kept[n - 1];
}
KERNEL(votes, (32), u32* out) {
  u32 odd = __ballot_sync(ALL_LANES, threadIdx.x & 1);
  float up = __shfl_up_sync(ALL_LANES, (float)threadIdx.x, 1), down = __shfl_down_sync(ALL_LANES, 1.0f, 1);
  if (threadIdx.x == 5) {
    out[0] = odd;
    out[1] = (u32)(up + down);
    out[2] = pack_bf16(1.0f, -2.0f);
    out[3] = __float_as_uint(ex2(-3.0f) + ex2(-200.0f) + ex2(NEGATIVE_INFINITY));
  }
}
#if __CUDA_ARCH__ >= 900
struct Pair { float value; u32 rank; };
KERNEL(cluster_totals, (64), const float* x, float* out) {
  SHARED(Pair, mine, [1]);
  float sum = block_sum<64>(x[blockIdx.x * 64 + threadIdx.x]);
  if (threadIdx.x == 0) mine[0] = {sum, cluster_rank()};
  cluster_arrive();
  cluster_wait();
  if (threadIdx.x == 0) {
    float all = 0.0f;
    for (u32 rank = 0; rank < CLUSTER; rank++) {
      Pair other = load_remote(mine[0], rank);
      all += other.rank == rank ? other.value : NOT_A_NUMBER;
    }
    out[blockIdx.x] = all;
  }
#ifndef WITHOUT_BARRIER
  cluster_arrive_relaxed();
  cluster_wait();
#endif
}
#endif
"#,
};

fn module() -> Module {
    Module::new(&SOURCE).define("CLUSTER", 4)
}

fn without_barrier() -> Module {
    module().define("WITHOUT_BARRIER", 1)
}

/// Launches a kernel of the tests.
fn launch(
    cuda: &Cuda,
    module: Module,
    name: &'static str,
    launch: Launch,
    arguments: Arguments,
) -> Result<()> {
    // SAFETY: the emulation notices what leaves a buffer by less than its guard, and no test leaves it by more.
    unsafe { cuda.launch(module, name, launch, &arguments) }
}

fn reversed(seed: u64, module: Module) -> Vec<f32> {
    let cuda = emulated(seed);
    let x = cuda.upload(&(0..256).map(|i| i as f32).collect::<Vec<f32>>()).expect("there is memory");
    let mut out = cuda.zeros::<f32>(256).expect("there is memory");
    let arguments = Arguments::new().read(x.view(0..256)).write(&out.view_mut(0..256));
    launch(&cuda, module, "reversed", Launch::new(1, 256), arguments).expect("it is launched");
    cuda.download(out.view(0..256)).expect("it ran")
}

#[test]
fn a_missing_barrier_shows_under_every_seed() {
    if no_compiler() {
        return;
    }
    let expected: Vec<f32> = (0..256).rev().map(|i| i as f32).collect();
    for seed in 0..4 {
        assert_eq!(reversed(seed, module()), expected);
        assert!(reversed(seed, without_barrier()).iter().any(|x| x.is_nan()), "seed {seed}");
    }
}

#[test]
fn shared_memory_that_is_written_again_too_early_shows() {
    if no_compiler() {
        return;
    }
    let run = |seed: u64, module: Module| {
        let cuda = emulated(seed);
        let x = cuda.upload(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]).expect("there is memory");
        let mut out = cuda.zeros::<f32>(512).expect("there is memory");
        let arguments = Arguments::new().read(x.view(0..8)).write(&out.view_mut(0..512));
        launch(&cuda, module, "used_again", Launch::new(1, 64), arguments).expect("it is launched");
        cuda.download(out.view(0..512)).expect("it ran")
    };
    let expected: Vec<f32> = (0..512).map(|i| (i / 64) as f32).collect();
    for seed in 0..4 {
        assert_eq!(run(seed, module()), expected);
        assert_ne!(run(seed, without_barrier()), expected, "seed {seed}");
    }
}

#[test]
fn what_a_gpu_leaves_undefined_ends_the_device_with_a_message() {
    if no_compiler() {
        return;
    }
    let told = |kernel: &'static str, at: u32, shared: u32| {
        let cuda = emulated(3);
        let mut out = cuda.zeros::<f32>(64).expect("there is memory");
        let arguments = Arguments::new().write(&out.view_mut(0..64));
        let arguments = if kernel == "beyond" { arguments.value(at) } else { arguments };
        let launched = launch(&cuda, module(), kernel, Launch::new(1, 64).shared(shared), arguments);
        let error = launched.expect_err(kernel);
        assert!(matches!(error, KernelError::DeviceLost { .. }), "{error}");
        // Like a real device, it repeats the error whatever is asked.
        let later = cuda.zeros::<f32>(1).map(drop).expect_err("the device is lost").to_string();
        assert_eq!(later, error.to_string());
        assert_eq!(cuda.synchronize().expect_err("the device is lost").to_string(), later);
        later
    };
    let lonely = told("lonely", 0, 0);
    assert!(
        lonely.starts_with("emulated is lost: kernel lonely: block 0, thread 0 waits at __syncthreads"),
        "{lonely}"
    );
    assert!(lonely.ends_with("thread 37 has ended"), "{lonely}");
    let shuffle = told("half_a_shuffle", 0, 0);
    assert!(shuffle.contains("thread 0 waits at a warp operation for ever"), "{shuffle}");
    let beyond = told("beyond", 64, 0);
    assert_eq!(beyond, "emulated is lost: kernel beyond: wrote beyond the 256 bytes of argument 0");
    let beyond = told("beyond_shared", 0, 0);
    assert!(beyond.ends_with("block 0: wrote beyond a shared variable of 256 bytes"), "{beyond}");
    let beyond = told("beyond_dynamic", 0, 252);
    assert!(beyond.ends_with("block 0: wrote beyond its 252 bytes of dynamic shared memory"), "{beyond}");
}

#[test]
fn a_block_stays_until_its_cluster_has_read_it() {
    if no_compiler() {
        return;
    }
    let run = |seed: u64, module: Module| {
        let cuda = emulated(seed);
        let x: Vec<f32> = (0..8 * 64).map(|i| (i % 7) as f32).collect();
        let x = cuda.upload(&x)?;
        let mut out = cuda.zeros::<f32>(8)?;
        let arguments = Arguments::new().read(x.view(0..512)).write(&out.view_mut(0..8));
        launch(&cuda, module, "cluster_totals", Launch::new(8, 64).clusters_of(4), arguments)?;
        cuda.download(out.view(0..8))
    };
    let total = |from: usize| (from..from + 256).map(|i| (i % 7) as f32).sum::<f32>();
    let expected = [[total(0); 4], [total(256); 4]].concat();
    let mut lost = 0;
    for seed in 0..6 {
        assert_eq!(run(seed, module()).expect("it runs"), expected);
        if let Err(error) = run(seed, without_barrier()) {
            assert!(
                error.to_string().contains("reads the shared memory of a block that has ended"),
                "{error}"
            );
            lost += 1;
        }
    }
    assert!(lost > 0, "no seed ends a block early");
}

#[test]
fn arguments_must_be_what_the_kernel_takes() {
    if no_compiler() {
        return;
    }
    let told = |arguments: fn(CudaView<'_, f32>, &CudaViewMut<'_, f32>) -> Arguments| {
        let cuda = emulated(0);
        let x = cuda.zeros::<f32>(64).expect("there is memory");
        let mut out = cuda.zeros::<f32>(64).expect("there is memory");
        let arguments = arguments(x.view(0..64), &out.view_mut(0..64));
        launch(&cuda, module(), "mixed", Launch::new(1, 64), arguments).map_err(|error| error.to_string())
    };
    assert_eq!(told(|x, out| Arguments::new().read(x).value(1u32).float(2.0).write(out)), Ok(()));
    let swapped = told(|x, out| Arguments::new().read(x).float(2.0).value(1u32).write(out));
    assert_eq!(swapped, Err("emulated is lost: kernel mixed: argument 1 is of another kind".into()));
    let wide = told(|x, out| Arguments::new().read(x).value(1u64).float(2.0).write(out));
    assert_eq!(wide, Err("emulated is lost: kernel mixed: argument 1 is of another kind".into()));
    let shared = told(|x, _| Arguments::new().read(x).value(1u32).float(2.0).read(x));
    assert_eq!(shared, Err("emulated is lost: kernel mixed: argument 3 is of another kind".into()));
    let few = told(|x, _| Arguments::new().read(x));
    assert_eq!(few, Err("emulated is lost: kernel mixed: takes 4 arguments and got 1".into()));
}

#[test]
fn a_launch_that_cannot_be_is_refused() {
    if no_compiler() {
        return;
    }
    let told = |shape: Launch| {
        let cuda = emulated(0);
        let x = cuda.zeros::<f32>(1024).expect("there is memory");
        let mut out = cuda.zeros::<u32>(1024).expect("there is memory");
        let arguments = Arguments::new().read(x.view(0..64)).write(&out.view_mut(0..1024));
        launch(&cuda, module(), "wide", shape, arguments).expect_err("it cannot be").to_string()
    };
    assert!(told(Launch::new(1, 64)).ends_with("a 16-byte access at an address that is no multiple of 16"));
    assert!(told(Launch::new(1, 128)).ends_with("is bound to 64 threads a block and got 128"));
    assert!(told(Launch::new(3, 64).clusters_of(2)).ends_with("a grid of 3, clusters of 2 and blocks of 64"));
    assert!(told(Launch::new(1, 64).shared(300 << 10)).contains("307200 bytes of shared memory"));
}

#[test]
fn blocks_and_warps_reduce_in_one_order() {
    if no_compiler() {
        return;
    }
    let blocks = 20;
    let x: Vec<f32> = (0..blocks * 256).map(|i| ((i * 2_654_435_761_usize) % 1000) as f32 * 0.001).collect();
    let run = |seed: u64| {
        let cuda = emulated(seed);
        let x = cuda.upload(&x).expect("there is memory");
        let (mut sums, mut most) = (cuda.zeros::<f32>(blocks).unwrap(), cuda.zeros::<f32>(blocks).unwrap());
        let arguments = Arguments::new()
            .read(x.view(0..blocks * 256))
            .write(&sums.view_mut(0..blocks))
            .write(&most.view_mut(0..blocks));
        launch(&cuda, module(), "block_totals", Launch::new(blocks, 256), arguments).expect("it is launched");
        let (sums, most) = (cuda.download(sums.view(0..blocks)), cuda.download(most.view(0..blocks)));
        (sums.expect("it ran"), most.expect("it ran"))
    };
    let found = run(0);
    for (b, block) in x.chunks(256).enumerate() {
        let sum: f64 = block.iter().map(|x| f64::from(*x)).sum();
        assert!((f64::from(found.0[b]) - sum).abs() < 1e-4, "{} is not {sum}", found.0[b]);
        assert_eq!(found.1[b], block.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    }
    assert_eq!(run(1), found);
}

#[test]
fn warps_vote_and_pass_values_and_numbers_round_as_on_a_gpu() {
    if no_compiler() {
        return;
    }
    let cuda = emulated(0);
    let mut out = cuda.zeros::<u32>(4).expect("there is memory");
    let arguments = Arguments::new().write(&out.view_mut(0..4));
    launch(&cuda, module(), "votes", Launch::new(1, 32), arguments).expect("it is launched");
    let found = cuda.download(out.view(0..4)).expect("it ran");
    let pair = u32::from(bf16::from_f32(-2.0).to_bits()) << 16 | u32::from(bf16::from_f32(1.0).to_bits());
    assert_eq!(found, [0xaaaa_aaaa, 5, pair, 0.125f32.to_bits()]);
}

#[test]
fn dynamic_shared_memory_can_be_as_large_as_a_gpus() {
    if no_compiler() {
        return;
    }
    let cuda = emulated(0);
    let n = cuda.properties().shared_bytes / 4;
    let mut out = cuda.zeros::<f32>(1).expect("there is memory");
    let arguments = Arguments::new().write(&out.view_mut(0..1)).value(n);
    launch(&cuda, module(), "dynamic", Launch::new(1, 64).shared(4 * n), arguments).expect("it is launched");
    assert_eq!(cuda.download(out.view(0..1)).expect("it ran"), [(n - 1) as f32]);
}

#[test]
fn a_source_that_does_not_compile_is_told_in_one_line() {
    if no_compiler() {
        return;
    }
    static BAD: Source =
        Source { file: "bad.cu", text: "// a comment\nKERNEL(bad, (32), float* x) { y = 1; }" };
    let cuda = emulated(0);
    let mut out = cuda.zeros::<f32>(1).expect("there is memory");
    let arguments = Arguments::new().write(&out.view_mut(0..1));
    let told = launch(&cuda, Module::new(&BAD), "bad", Launch::new(1, 32), arguments)
        .expect_err("y is not declared");
    let told = told.to_string();
    assert!(told.starts_with("emulated: bad.cu does not compile: ") && told.contains("bad.cu:2:"), "{told}");
    assert!(!told.contains('\n'), "{told}");
    // An ordinary error: the device goes on.
    assert!(cuda.synchronize().is_ok());
}

#[test]
fn memory_goes_up_and_down_and_ranges_are_checked() {
    if no_compiler() {
        return;
    }
    let cuda = emulated(0);
    let host: Vec<u32> = (0..100).collect();
    let mut buffer = cuda.upload(&host).expect("there is memory");
    cuda.write(buffer.view_mut(10..12), &[7, 8]).expect("equal lengths");
    cuda.fill(buffer.view_mut(20..30), 5).expect("it is launched");
    let copy = cuda.upload(&[1u32, 2, 3]).expect("there is memory");
    cuda.copy(buffer.view_mut(97..100), copy.view(0..3)).expect("equal lengths");
    let mut expected = host.clone();
    expected[10..12].copy_from_slice(&[7, 8]);
    expected[20..30].fill(5);
    expected[97..].copy_from_slice(&[1, 2, 3]);
    assert_eq!(cuda.download(buffer.view(0..100)).expect("it is there"), expected);
    assert_eq!(cuda.download(buffer.view(0..100).range(96..98)).expect("it is there"), [96, 1]);
    let refused = cuda.copy(buffer.view_mut(0..2), copy.view(0..3)).expect_err("other lengths").to_string();
    assert_eq!(refused, "copy: source has 3 elements, expected 2");

    let mut halves = cuda.zeros::<bf16>(5).expect("there is memory");
    cuda.fill(halves.view_mut(1..4), bf16::from_f32(2.5)).expect("it is launched");
    let found =
        cuda.download(halves.view(0..5)).expect("it is there").iter().map(|x| x.to_f32()).collect::<Vec<_>>();
    assert_eq!(found, [0.0, 2.5, 2.5, 2.5, 0.0]);
    let mut stats = cuda.zeros::<RowStat>(3).expect("there is memory");
    let stat = RowStat { loss: 1.0, clip: 2, ..RowStat::default() };
    cuda.fill(stats.view_mut(1..3), stat).expect("it is copied");
    assert_eq!(cuda.download(stats.view(0..3)).expect("it is there"), [RowStat::default(), stat, stat]);

    let empty = cuda.upload::<f32>(&[]).expect("nothing is needed");
    assert_eq!(cuda.download(empty.view(0..0)).expect("nothing is there"), [0.0f32; 0]);
    let beyond = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| buffer.view(99..101).len()));
    assert!(beyond.is_err());
}

#[test]
fn products_of_bf16_are_summed_in_f32() {
    if no_compiler() {
        return;
    }
    let cuda = emulated(0);
    let (m, n, k) = (3, 5, 7);
    let value = |i: usize| bf16::from_f32(((i * 37) % 11) as f32 * 0.25 - 1.0);
    let (a, b): (Vec<bf16>, Vec<bf16>) =
        ((0..m * k).map(value).collect(), (0..n * k).map(|i| value(i + 3)).collect());
    let shape = Matmul {
        m,
        n,
        k,
        a: MatrixLayout::rows(k),
        b: MatrixLayout::transposed(k),
        c_row: n + 1,
        accumulate: true,
    };
    let start = vec![0.5f32; m * (n + 1)];
    let (a_there, b_there) = (cuda.upload(&a).unwrap(), cuda.upload(&b).unwrap());
    let mut c = cuda.upload(&start).unwrap();
    let len = c.len();
    cuda.gemm(shape, a_there.view(0..m * k), b_there.view(0..n * k), &c.view_mut(0..len))
        .expect("it multiplies");
    let mut rounded = cuda.upload(&start.iter().map(|x| bf16::from_f32(*x)).collect::<Vec<_>>()).unwrap();
    cuda.gemm(shape, a_there.view(0..m * k), b_there.view(0..n * k), &rounded.view_mut(0..len))
        .expect("it multiplies");
    let (c, rounded) = (cuda.download(c.view(0..len)).unwrap(), cuda.download(rounded.view(0..len)).unwrap());
    for (i, j) in (0..m * (n + 1)).map(|e| (e / (n + 1), e % (n + 1))) {
        let sum: f32 =
            if j < n { (0..k).map(|x| a[i * k + x].to_f32() * b[j * k + x].to_f32()).sum() } else { 0.0 };
        // Quarters: every sum is exact in f32.
        assert_eq!(c[i * (n + 1) + j], sum + 0.5, "{i} {j}");
        assert_eq!(rounded[i * (n + 1) + j], bf16::from_f32(sum + 0.5), "{i} {j}");
    }
}

#[test]
fn a_matrix_that_is_contiguous_in_neither_direction_is_refused() {
    if no_compiler() {
        return;
    }
    let cuda = emulated(0);
    let x = cuda.zeros::<f32>(64).unwrap();
    let mut c = cuda.zeros::<f32>(9).unwrap();
    let odd = MatrixLayout { row: 6, col: 2 };
    let b = MatrixLayout::rows(3);
    let shape = Matmul { m: 3, n: 3, k: 3, a: odd, b, c_row: 3, accumulate: false };
    let told = cuda.matmul(shape, x.view(0..64), x.view(0..64), c.view_mut(0..9)).expect_err("it is refused");
    let expected = "matmul: a has neither rows nor columns that are contiguous: 6, 2";
    assert_eq!(told.to_string(), expected);
}

#[test]
fn a_machine_without_a_gpu_says_so_in_one_line() {
    match Cuda::gpus() {
        Ok((count, _)) => {
            let told = Cuda::new(count + 1).expect_err("there are not so many").to_string();
            assert_eq!(told, format!("cuda:{}: there are {count} GPUs", count + 1));
        }
        Err(why) => {
            let told = Cuda::new(0).expect_err("there is no GPU").to_string();
            assert_eq!(told, format!("cuda:0: {why}"));
            assert!(!told.contains('\n'), "{told}");
        }
    }
}
