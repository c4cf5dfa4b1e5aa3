//! Compiles the libraries that stand in for NVIDIA's; the tests of other targets include this file too.

use std::{
    env, fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

const SOURCES: [(&str, &str); 3] = [
    ("libcuda.so.1", include_str!("cuda.cpp")),
    ("libcublasLt.so.13", include_str!("cublas_lt.cpp")),
    ("libnvrtc.so.13", include_str!("nvrtc.cpp")),
];

/// Compiles them into a folder. Kernels that are launched later are compiled into `kernels`, which may be kept.
/// The error says what the compiler said, or that there is none.
pub fn compile(folder: &Path, kernels: &Path) -> Result<(), String> {
    let compiler = env::var("CXX").ok().filter(|name| !name.is_empty()).unwrap_or_else(|| "g++".into());
    for made in [folder, kernels] {
        fs::create_dir_all(made).map_err(|error| format!("{}: {error}", made.display()))?;
    }
    let write = |name: &str, text: &str| {
        fs::write(folder.join(name), text).map_err(|error| format!("{name} in {}: {error}", folder.display()))
    };
    write("stand_in.h", include_str!("stand_in.h"))?;
    let emulation = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("cuda");
    for (library, text) in SOURCES {
        let source = format!("{library}.cpp");
        let text = if library == "libcuda.so.1" {
            let constants = [
                ("EMULATION", emulation.display().to_string()),
                ("KERNELS", kernels.display().to_string()),
                ("COMPILER", compiler.clone()),
                ("DRIVER_LAUNCH", include_str!("driver_launch.h").to_owned()),
            ];
            // A raw literal of C++: no text of ours has its end in it.
            let define = |(name, value): &(&str, String)| {
                format!("static const std::string {name} = R\"~~({value})~~\";\n")
            };
            "#include <string>\n".to_owned() + &constants.iter().map(define).collect::<String>() + text
        } else {
            text.to_owned()
        };
        write(&source, &text)?;
        let mut command = Command::new(&compiler);
        command.current_dir(folder).args(["-std=c++20", "-O1", "-fPIC", "-shared", "-fvisibility=hidden"]);
        command.args([&format!("-Wl,-soname,{library}"), "-o", library, &source]);
        if library == "libcublasLt.so.13" {
            // It uses the memory of the other.
            command.args(["-Wl,--no-as-needed", "libcuda.so.1", "-Wl,-rpath,$ORIGIN"]);
        }
        let built =
            command.output().map_err(|error| format!("the C++ compiler {compiler} does not run: {error}"))?;
        if !built.status.success() {
            return Err(format!("{library}: {}", String::from_utf8_lossy(&built.stderr)));
        }
        // The name that cudarc asks for first: a machine with a driver has it too.
        let bare = folder.join(library).with_extension("");
        let _ = fs::remove_file(&bare);
        symlink(library, &bare).map_err(|error| format!("{}: {error}", bare.display()))?;
    }
    Ok(())
}
