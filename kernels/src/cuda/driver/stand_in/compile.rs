//! Compiles the libraries that stand in for NVIDIA's; the tests of other targets include this file too.

use std::{env, fs, os::unix::fs::symlink, path::Path, process::Command};

const SOURCES: [(&str, &str); 3] = [
    ("libcuda.so.1", include_str!("cuda.cpp")),
    ("libcublasLt.so.13", include_str!("cublas_lt.cpp")),
    ("libnvrtc.so.13", include_str!("nvrtc.cpp")),
];
/// What comes before the source of every kernel.
const EMULATION: &str = concat!(
    include_str!("../../../../cuda/emulation.h"),
    include_str!("../../../../cuda/emulated_cuda.h"),
    include_str!("driver_launch.h")
);
/// How kernels are compiled: they run once on tiny shapes, and the compiler's time is most of theirs.
const OPTIONS: &str = "-std=c++20 -O0 -ffp-contract=off -fPIC -shared -fvisibility=hidden -fno-gnu-unique -w \
                       -DOPENCLAW_EMULATED -D__CUDA_ARCH__=900";

fn compiler() -> String {
    env::var("CXX").ok().filter(|name| !name.is_empty()).unwrap_or_else(|| "g++".into())
}

fn write(folder: &Path, name: &str, text: &str) -> Result<(), String> {
    fs::write(folder.join(name), text).map_err(|error| format!("{name} in {}: {error}", folder.display()))
}

/// Runs the compiler; the error is what it said, or that there is none.
fn run(command: &mut Command, what: &str) -> Result<(), String> {
    let built =
        command.output().map_err(|error| format!("the C++ compiler {} does not run: {error}", compiler()))?;
    if built.status.success() {
        return Ok(());
    }
    Err(format!("{what}: {}", String::from_utf8_lossy(&built.stderr)))
}

/// Compiles them into a folder. Kernels that are launched later are compiled into `kernels`, which may be kept.
/// The error says what the compiler said, or that there is none.
pub fn compile(folder: &Path, kernels: &Path) -> Result<(), String> {
    for made in [folder, kernels] {
        fs::create_dir_all(made).map_err(|error| format!("{}: {error}", made.display()))?;
    }
    write(folder, "stand_in.h", include_str!("stand_in.h"))?;
    // Written again it would be newer than what is compiled of it.
    if fs::read_to_string(kernels.join("emulation.h")).ok().as_deref() != Some(EMULATION) {
        let _ = fs::remove_file(kernels.join("emulation.h.gch"));
        write(kernels, "emulation.h", EMULATION)?;
    }
    for (library, text) in SOURCES {
        let source = format!("{library}.cpp");
        let text = if library == "libcuda.so.1" {
            let constants = [
                ("COMPILE", format!("{} {OPTIONS}", compiler())),
                ("KERNELS", kernels.display().to_string()),
                ("EMULATION", EMULATION.to_owned()),
            ];
            // A raw literal of C++: no text of ours has its end in it.
            let define = |(name, value): &(&str, String)| {
                format!("static const std::string {name} = R\"~~({value})~~\";\n")
            };
            "#include <string>\n".to_owned() + &constants.iter().map(define).collect::<String>() + text
        } else {
            text.to_owned()
        };
        write(folder, &source, &text)?;
        let mut command = Command::new(compiler());
        command.current_dir(folder).args(["-std=c++20", "-O1", "-fPIC", "-shared", "-fvisibility=hidden"]);
        command.args([&format!("-Wl,-soname,{library}"), "-o", library, &source]);
        if library == "libcublasLt.so.13" {
            // It uses the memory of the other.
            command.args(["-Wl,--no-as-needed", "libcuda.so.1", "-Wl,-rpath,$ORIGIN"]);
        }
        run(&mut command, library)?;
        // The name that cudarc asks for first: a machine with a driver has it too.
        let bare = folder.join(library).with_extension("");
        let _ = fs::remove_file(&bare);
        symlink(library, &bare).map_err(|error| format!("{}: {error}", bare.display()))?;
    }
    Ok(())
}

/// Compiles the emulation once for the many kernels of a test that launches them all.
#[allow(dead_code)] // not every target that includes this file is one
pub fn precompile(kernels: &Path) -> Result<(), String> {
    if kernels.join("emulation.h.gch").exists() {
        return Ok(());
    }
    let mut command = Command::new(compiler());
    command.current_dir(kernels).args(OPTIONS.split_whitespace());
    command.args(["-x", "c++-header", "emulation.h", "-o", "emulation.h.gch"]);
    run(&mut command, "emulation.h")
}
