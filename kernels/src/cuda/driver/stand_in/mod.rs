//! The real driver code against libraries that stand in for NVIDIA's: no machine of ours has a GPU at all times.
#![allow(unsafe_code)]

mod compile;

use std::{
    env, fs,
    path::PathBuf,
    process::{self, Command},
};

use self::compile::compile;
use crate::backend::Backend;
use crate::cuda::{
    Cuda, Module, SYNC_VARIABLE, Source,
    launch::{Arguments, Launch},
    libraries::VARIABLE,
    tests::emulated_or_skip,
};
use crate::error::{KernelError, Result};
use crate::ops::{Matmul, MatrixLayout};

const SOURCE: Source = Source {
    file: "stand_in.cu",
    text: "KERNEL(tell_launch, (32), u32* told) { told[0] = 0; }\nKERNEL(breaks, (32), u32* told) { told[0] = 0; }",
};

/// What a test below, which is ignored, writes in a process of its own that has the stand-ins and `variables`; `None`
/// where they cannot be made.
fn on_stand_ins(test: &str, variables: &[(&str, &str)]) -> Option<String> {
    emulated_or_skip()?;
    let folder: PathBuf = env::temp_dir().join(format!("openclaw-stand-in-{}-{test}", process::id()));
    compile(&folder, &folder.join("kernels")).expect("there is a C++ compiler");
    let child = Command::new(env::current_exe().expect("a test has a path"))
        .args(["--exact", &format!("cuda::driver::stand_in::{test}"), "--ignored", "--nocapture"])
        .env(VARIABLE, &folder)
        .env("LD_LIBRARY_PATH", &folder)
        .env("OPENCLAW_KERNEL_CACHE", folder.join("cache"))
        .envs(variables.iter().copied())
        .output()
        .expect("the test binary starts");
    let told = String::from_utf8_lossy(&child.stderr).into_owned() + &String::from_utf8_lossy(&child.stdout);
    fs::remove_dir_all(&folder).expect("it was made");
    assert!(child.status.success() && told.contains("1 passed"), "{}: {told}", child.status);
    Some(told)
}

#[test]
fn the_driver_code_asks_for_the_right_things() {
    let Some(told) = on_stand_ins("with_the_stand_ins", &[]) else { return };
    for expected in
        ["product with 3 rows by the algorithm for 64", "product with 70 rows by the algorithm for 2048"]
    {
        assert!(told.contains(expected), "{expected}: {told}");
    }
    // The device's memory was given back before its context; what is lost later frees nothing.
    assert!(told.contains("released with 0 allocations"), "{told}");
}

#[test]
fn a_fault_names_its_kernel_where_every_launch_is_waited_for() {
    on_stand_ins("a_named_fault", &[(SYNC_VARIABLE, "1")]);
}

#[test]
fn a_product_after_a_fault_says_that_the_gpu_is_lost() {
    on_stand_ins("a_product_after_a_fault", &[]);
}

#[test]
#[ignore = "runs in a process of its own, by the test above"]
fn with_the_stand_ins() {
    let cuda = Cuda::new(0).expect("the stand-in has a GPU");
    assert_eq!(cuda.properties().name, "a stand-in");
    assert_eq!((cuda.properties().arch, cuda.properties().multiprocessors), (90, 132));
    assert_eq!((cuda.properties().memory_bytes, cuda.properties().shared_bytes), (64 << 20, 227 << 10));
    let told = Cuda::new(1).expect_err("there is one GPU").to_string();
    assert_eq!(told, "cuda:1: there are 1 GPUs");

    // Memory, from threads that have no context yet.
    let mut buffer = cuda.upload(&[1u32, 2, 3, 4, 5]).expect("there is memory");
    std::thread::scope(|scope| {
        let fill = || cuda.fill(buffer.view_mut(1..3), 9).expect("the kernel is known");
        scope.spawn(fill).join().expect("it fills");
    });
    assert_eq!(cuda.download(buffer.view(0..5)).expect("it is there"), [1, 9, 9, 4, 5]);
    let zeros = cuda.zeros::<u32>(3).expect("there is memory");
    cuda.copy(buffer.view_mut(0..3), zeros.view(0..3)).expect("equal lengths");
    assert_eq!(cuda.download(buffer.view(0..5)).expect("it is there"), [0, 0, 0, 4, 5]);
    let told = cuda.zeros::<f32>(20 << 20).map(drop).expect_err("there are 64 MiB").to_string();
    assert!(told.starts_with("cuda:0: out of memory: 83886080 bytes asked, "), "{told}");

    // A launch: 1000 bytes of every kernel's shared memory are its own.
    let mut launch = cuda.zeros::<u32>(7).expect("there is memory");
    let arguments = Arguments::new().write(&launch.view_mut(0..7));
    let shape = Launch::new(48, 32).clusters_of(16).shared(50_000);
    // SAFETY: the stand-in writes the seven words.
    unsafe { cuda.launch(Module::new(&SOURCE), "tell_launch", shape, &arguments) }.expect("it is known");
    let expected = [48, 32, 1, 16, 50_000, (227 << 10) - 1000, 1];
    assert_eq!(cuda.download(launch.view(0..7)).expect("it is there"), expected);
    let ((), millis) = cuda.millis(|| Ok(())).expect("it measures");
    assert_eq!(millis, 2.5);

    products(&cuda);

    // The workspace and everything kept is given back when the last user is gone.
    drop((buffer, zeros, launch, cuda));
    let cuda = Cuda::new(0).expect("it opens again");
    let mut buffer = cuda.zeros::<u32>(7).expect("there is memory");
    let arguments = Arguments::new().write(&buffer.view_mut(0..7));
    // SAFETY: the stand-in writes nothing.
    unsafe { cuda.launch(Module::new(&SOURCE), "breaks", Launch::new(1, 32), &arguments) }
        .expect("it is known");
    let told = cuda.synchronize().expect_err("the kernel broke the GPU").to_string();
    assert_eq!(told, "cuda:0 is lost: a kernel failed: CUDA_ERROR_ILLEGAL_ADDRESS");
    assert_eq!(cuda.zeros::<u32>(10_000).map(drop).expect_err("it is lost").to_string(), told);
    let refused = Cuda::new(0).map(drop).expect_err("it is lost").to_string();
    assert_eq!(refused, format!("{told} (this process must be restarted)"));
}

/// Launches the kernel after which the GPU is lost.
fn break_it(cuda: &Cuda) -> Result<()> {
    let mut buffer = cuda.uninitialized::<u32>(7)?;
    let arguments = Arguments::new().write(&buffer.view_mut(0..7));
    // SAFETY: the stand-in writes nothing.
    unsafe { cuda.launch(Module::new(&SOURCE).define("N", 3), "breaks", Launch::new(1, 32), &arguments) }
}

#[test]
#[ignore = "runs in a process of its own, by a test above"]
fn a_named_fault() {
    let cuda = Cuda::new(0).expect("the stand-in has a GPU");
    let mut buffer = cuda.zeros::<u32>(4).expect("there is memory");
    cuda.fill(buffer.view_mut(0..4), 9).expect("nothing is wrong yet");
    let told = break_it(&cuda).expect_err("the kernel breaks the GPU");
    assert!(matches!(told, KernelError::DeviceLost { .. }));
    let launch = "Launch { grid: 1, block: 32, cluster: 1, shared_bytes: 0 }";
    let expected =
        format!("cuda:0 is lost: breaks of stand_in.cu N=3, {launch} failed: CUDA_ERROR_ILLEGAL_ADDRESS");
    assert_eq!(told.to_string(), expected);
    // And whatever is asked later.
    assert_eq!(cuda.synchronize().expect_err("it is lost").to_string(), expected);
}

#[test]
#[ignore = "runs in a process of its own, by a test above"]
fn a_product_after_a_fault() {
    let cuda = Cuda::new(0).expect("the stand-in has a GPU");
    let (a, mut c) = (cuda.zeros::<f32>(9).expect("memory"), cuda.zeros::<f32>(9).expect("memory"));
    let layout = MatrixLayout::rows(3);
    let shape = Matmul { m: 3, n: 3, k: 3, a: layout, b: layout, c_row: 3, accumulate: false };
    let mut product = || cuda.matmul(shape, a.view(0..9), a.view(0..9), c.view_mut(0..9));
    product().expect("nothing is wrong yet");
    break_it(&cuda).expect("the launch is queued");
    let told = product().expect_err("the GPU is lost");
    assert!(matches!(told, KernelError::DeviceLost { .. }));
    let expected = "cuda:0 is lost: cuBLAS cannot multiply: CUBLAS_STATUS_EXECUTION_FAILED, and work before it \
                    failed: CUDA_ERROR_ILLEGAL_ADDRESS";
    assert_eq!(told.to_string(), expected);
}

/// Every layout, few rows and many, added or not.
fn products(cuda: &Cuda) {
    let value = |i: usize| ((i * 37) % 11) as f32 * 0.25 - 1.0;
    for (m, n, k) in [(3, 5, 7), (70, 6, 4)] {
        let a: Vec<f32> = (0..m * k).map(value).collect();
        let b: Vec<f32> = (0..n * k).map(|i| value(i + 3)).collect();
        for (a_layout, b_layout) in [
            (MatrixLayout::rows(k), MatrixLayout::rows(n)),
            (MatrixLayout::rows(k), MatrixLayout::transposed(k)),
            (MatrixLayout::transposed(m), MatrixLayout::rows(n)),
            (MatrixLayout::transposed(m), MatrixLayout::transposed(k)),
        ] {
            for accumulate in [false, true] {
                let shape = Matmul { m, n, k, a: a_layout, b: b_layout, c_row: n + 2, accumulate };
                let (a_there, b_there) = (cuda.upload(&a).unwrap(), cuda.upload(&b).unwrap());
                let mut c = cuda.upload(&vec![0.5f32; m * (n + 2)]).unwrap();
                let len = c.len();
                cuda.matmul(shape, a_there.view(0..m * k), b_there.view(0..n * k), c.view_mut(0..len))
                    .expect("it multiplies");
                let found = cuda.download(c.view(0..len)).unwrap();
                for (i, j) in (0..len).map(|e| (e / (n + 2), e % (n + 2))) {
                    let at = |l: MatrixLayout, i: usize, j: usize| i * l.row + j * l.col;
                    let sum: f32 = (0..k)
                        .map(|p| a[at(a_layout, i, p)] * b.get(at(b_layout, p, j)).unwrap_or(&0.0))
                        .sum();
                    let expected = match (j < n, accumulate) {
                        (false, _) => 0.5,
                        (true, false) => sum,
                        (true, true) => sum + 0.5,
                    };
                    // Quarters: every sum is exact.
                    assert_eq!(found[i * (n + 2) + j], expected, "{shape:?} {i} {j}");
                }
            }
        }
    }
}
