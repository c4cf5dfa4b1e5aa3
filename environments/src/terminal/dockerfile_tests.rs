use super::*;
use proptest::prelude::*;

const FILE: &str = r#"# syntax=docker/dockerfile:1
FROM --platform=linux/amd64 ubuntu:22.04 AS base

ENV DEBIAN_FRONTEND=noninteractive LANG="C UTF-8"
ENV PATH /opt/bin:$PATH
RUN apt-get update && \
    # tools
    apt-get install -y --no-install-recommends \
      python3 python3-pip=22.0 \

      git && \
    rm -rf /var/lib/apt/lists/*
RUN set -eux; pip3 install --no-cache-dir "pytest>=8,<9" Numpy==1.26 scikit_learn requests[socks] && mkdir -p /app/data
WORKDIR /app
COPY ["my file.txt", "/app/"]
COPY data/ tests /app/
RUN ["python3", "-c", "print('apt-get')"]
RUN for i in 1 2 3; do echo "line $i" >> /app/log; done
"#;

fn error(text: &str) -> String {
    Dockerfile::parse(text).unwrap_err().to_string()
}

#[test]
fn packages_become_needs_and_the_rest_is_kept() {
    let file = Dockerfile::parse(FILE).unwrap();
    assert_eq!(file.image, "ubuntu:22.04");
    let needs: Vec<String> = file.needs.iter().map(Package::to_string).collect();
    assert_eq!(
        needs,
        [
            "apt:git",
            "apt:python3",
            "apt:python3-pip=22.0",
            "pip:numpy==1.26",
            "pip:pytest>=8,<9",
            "pip:requests",
            "pip:scikit-learn"
        ]
    );
    let text = |text: &str| text.to_owned();
    assert_eq!(
        file.instructions,
        [
            Instruction::Env(vec![
                (text("DEBIAN_FRONTEND"), text("noninteractive")),
                (text("LANG"), text("C UTF-8"))
            ]),
            Instruction::Env(vec![(text("PATH"), text("/opt/bin:$PATH"))]),
            Instruction::Shell(text("set -eux ; mkdir -p /app/data")),
            Instruction::Workdir(text("/app")),
            Instruction::Copy { sources: vec![text("my file.txt")], target: text("/app/") },
            Instruction::Copy { sources: vec![text("data/"), text("tests")], target: text("/app/") },
            Instruction::Exec(vec![text("python3"), text("-c"), text("print('apt-get')")]),
            Instruction::Shell(text("for i in 1 2 3; do echo \"line $i\" >> /app/log; done")),
        ]
    );
}

#[test]
fn what_a_box_lacks_is_named() {
    let file = Dockerfile::parse(FILE).unwrap();
    let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    let mut offer = Offer {
        images: set(&["ubuntu:22.04"]),
        apt: set(&["git", "python3", "python3-pip"]),
        pip: set(&["pytest", "numpy", "requests"]),
    };
    assert_eq!(file.check(&offer).unwrap_err().to_string(), "needs pip:scikit-learn");
    offer.pip.insert("scikit-learn".into());
    assert_eq!(file.check(&offer), Ok(()));
    offer.images.clear();
    assert_eq!(file.check(&offer).unwrap_err().to_string(), "needs image:ubuntu:22.04");
}

#[test]
fn everything_else_is_refused_by_name() {
    for (lines, says) in [
        ("EXPOSE 80", "Dockerfile:2: EXPOSE is not supported"),
        ("CMD [\"a\"]", "Dockerfile:2: CMD is not supported"),
        ("FROM b", "Dockerfile:2: a second FROM is not supported"),
        ("COPY --from=b /x /y", "Dockerfile:2: COPY --from is not supported"),
        ("COPY ../x /y", "Dockerfile:2: COPY ../x is not supported"),
        ("COPY x", "Dockerfile:2: COPY is not written right"),
        ("WORKDIR", "Dockerfile:2: WORKDIR is not written right"),
        ("ENV X", "Dockerfile:2: ENV is not written right"),
        ("RUN --mount=type=cache make", "Dockerfile:2: RUN --mount is not supported"),
        ("RUN cat <<EOF\nhello\nEOF", "Dockerfile:2: RUN with << is not supported"),
        (
            "RUN curl -fsSL x | sh",
            "Dockerfile:2: RUN with curl in a group, pipe or redirection is not supported",
        ),
        ("RUN echo a && wget b", "Dockerfile:2: RUN wget b is not supported"),
        (
            "RUN (apt-get install -y x)",
            "Dockerfile:2: RUN with apt-get in a group, pipe or redirection is not supported",
        ),
        (
            "RUN if true; then pip install x; fi",
            "Dockerfile:2: RUN with pip in a group, pipe or redirection is not supported",
        ),
        (
            "RUN apt-get install -y x || true",
            "Dockerfile:2: RUN with apt-get in a group, pipe or redirection is not supported",
        ),
        ("RUN bash -c 'curl x'", "Dockerfile:2: RUN bash -c curl x is not supported"),
        (
            "RUN pip install -r requirements.txt",
            "Dockerfile:2: RUN pip install -r requirements.txt is not supported",
        ),
        ("RUN pip install .", "Dockerfile:2: RUN pip install . is not supported"),
        ("RUN pip install git+https://x/y", "Dockerfile:2: RUN pip install git+https://x/y is not supported"),
        ("RUN pip install $X", "Dockerfile:2: RUN pip install $X is not supported"),
        ("RUN git clone x", "Dockerfile:2: RUN git clone x is not supported"),
        ("RUN npm install", "Dockerfile:2: RUN npm install is not supported"),
        ("RUN echo 'open", "Dockerfile:2: RUN is not written right"),
    ] {
        assert_eq!(error(&format!("FROM a\n{lines}\n")), says);
    }
    assert_eq!(error(""), "Dockerfile:1: no FROM");
    assert_eq!(error("ARG X=1\nFROM a"), "Dockerfile:1: no FROM");
    assert_eq!(error("FROM $X"), "Dockerfile:1: FROM $X is not supported");
    assert_eq!(error("# escape=`\nFROM a"), "Dockerfile:1: the escape directive is not supported");
    assert_eq!(
        error(&"#".repeat(BYTES_MAX + 1)),
        "Dockerfile:1: longer than 262144 bytes or 1000 instructions"
    );
}

proptest! {
    #[test]
    fn any_bytes_are_a_file_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = Dockerfile::parse(&format!("FROM a\nRUN {}", String::from_utf8_lossy(&bytes)));
    }

    #[test]
    fn a_damaged_file_is_a_file_or_an_error(at in 0usize..FILE.len(), len in 0usize..9, new in r#"\PC{0,5}|[\n\[\]"'\\ &|;]{1,4}"#) {
        let mut text = FILE.to_owned();
        text.replace_range(at..(at + len).min(FILE.len()), &new);
        let _ = Dockerfile::parse(&text);
    }

    #[test]
    fn no_installer_is_ever_run(before in r"[a-z]{1,4}( && | ; |; |&&)", program in "apt-get install|pip install|curl|wget", after in "( && | \\| | ; )[a-z]{1,4}") {
        let text = format!("FROM a\nRUN {before}{program} thing{after}");
        if let Ok(file) = Dockerfile::parse(&text) {
            for instruction in &file.instructions {
                let Instruction::Shell(shell) = instruction else { panic!("{instruction:?}") };
                prop_assert!(!shell.contains(&program), "{}", shell);
            }
        }
    }
}
