//! The builds of the engine's target table, in process, without a peer: what a change costs or gains.
//!
//! `cargo bench -p ashlar-native --bench rows -- [--isolated] [--runs N] [ROW...]` runs the rows
//! whose names begin with one of the words, in a new data directory each. `--isolated` gives steps
//! the network that the command line gives them. The ratios that count are those of `bench/run`.
#![expect(clippy::unwrap_used, reason = "a panic is how a benchmark fails")]
#![expect(clippy::print_stdout, reason = "the table is what it is for")]

#[path = "../tests/support/mod.rs"]
mod support;

use std::cell::Cell;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::time::{Duration, Instant};

use ashlar_core::graph::Network;
use ashlar_frontend_dockerfile::Request;
use ashlar_layers::Compression;
use ashlar_native::Built;
use ashlar_native::export::{Destination, Image, Output, OutputKind};
use ashlar_sandbox::Cancel;
use support::{Done, Quiet, World};

const RUNS_DEFAULT: usize = 3;
const SMALL_FILES: usize = 50_000;
const SMALL_DIRS: usize = 500;
const UNPACKED_FILES: usize = 30_000;
const STAGES: usize = 20;
const STEPS: usize = 100;
const MIB: usize = 1 << 20;

/// One row: makes its context once, then is built by phases in every run.
struct Row {
    name: &'static str,
    make: fn(&Bench),
    phases: &'static [Phase],
}

/// One timed build; `change` prepares it, untimed.
struct Phase {
    name: &'static str,
    change: fn(&Bench) -> String,
    export: bool,
}

const ROWS: &[Row] = &[
    Row {
        name: "tiny",
        make: nothing,
        phases: &[Phase::build("cold", tiny), Phase::build("unchanged", unchanged)],
    },
    Row { name: "mid", make: prime_mid, phases: &[Phase::build("sixth of 12", mid)] },
    Row {
        name: "ctx50k",
        make: nothing,
        phases: &[
            Phase::build("cold", small_files),
            Phase::build("unchanged", unchanged),
            Phase::build("one changed", one_small_file),
        ],
    },
    Row { name: "copy1g", make: big_file, phases: &[Phase::build("cold", big_file_in_place)] },
    Row { name: "stages20", make: nothing, phases: &[Phase::build("cold", stages)] },
    Row {
        name: "layers100",
        make: nothing,
        phases: &[Phase::build("cold", many_steps), Phase::build("unchanged", unchanged)],
    },
    Row { name: "unpack30k", make: archive_of_files, phases: &[Phase::build("cold", unpack)] },
    Row {
        name: "export128m",
        make: text_layer,
        phases: &[Phase { name: "archive", change: new_first_line, export: true }],
    },
];

impl Phase {
    const fn build(name: &'static str, change: fn(&Bench) -> String) -> Self {
        Self { name, change, export: false }
    }
}

/// A world and what changes from build to build.
struct Bench {
    world: World,
    network: Network,
    made: Cell<usize>,
    dockerfile: Cell<String>,
}

impl Bench {
    fn new(network: Network) -> Self {
        let (made, dockerfile) = (Cell::new(0), Cell::default());
        Self { world: World::new(), network, made, dockerfile }
    }

    /// A text that no earlier build has seen.
    fn nonce(&self) -> String {
        self.made.set(self.made.get() + 1);
        format!("n{:06}", self.made.get())
    }

    fn build(&self, dockerfile: &str) -> Done {
        let mut request = self.world.request(Request::text(dockerfile));
        request.network = self.network;
        self.world.run(request, &Cancel::new().unwrap()).unwrap()
    }

    /// Times one phase.
    fn time(&self, phase: &Phase) -> Duration {
        let dockerfile = (phase.change)(self);
        rustix::fs::sync();
        let start = Instant::now();
        let done = self.build(&dockerfile);
        if phase.export {
            self.export(&done.built);
        }
        let time = start.elapsed();
        self.dockerfile.set(dockerfile);
        time
    }

    fn export(&self, built: &Built) {
        let image = Image::of(built, Vec::new(), None).unwrap();
        let to = self.world.data().join("out.tar");
        let kind = OutputKind::OciArchive(Destination::File(to));
        let compression = Compression::GZIP;
        let output = Output { kind, compression, annotations: Default::default() };
        self.world.engine.export(built, &image, &output, &Quiet, &Cancel::new().unwrap()).unwrap();
    }
}

fn main() {
    let mut words: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let network = match words.iter().position(|w| w == "--isolated") {
        Some(at) => {
            words.remove(at);
            Network::Default
        }
        None => Network::None,
    };
    let runs = match words.iter().position(|w| w == "--runs") {
        Some(at) => words.drain(at..at + 2).next_back().unwrap().parse().unwrap(),
        None => RUNS_DEFAULT,
    };
    println!("{:24} {:>10} {:>10} {:>10}", "row", "median s", "best s", "peak MiB");
    for row in ROWS {
        if words.is_empty() || words.iter().any(|w| row.name.starts_with(w.as_str())) {
            measure(row, network, runs);
        }
    }
}

fn measure(row: &Row, network: Network, runs: usize) {
    let bench = Bench::new(network);
    (row.make)(&bench);
    let mut times = vec![Vec::new(); row.phases.len()];
    let mut peaks = vec![0; row.phases.len()];
    for _ in 0..runs {
        for (i, phase) in row.phases.iter().enumerate() {
            forget_peak();
            times[i].push(bench.time(phase));
            peaks[i] = peaks[i].max(peak_mib());
        }
    }
    for (i, phase) in row.phases.iter().enumerate() {
        times[i].sort();
        let (median, best) = (times[i][runs / 2].as_secs_f64(), times[i][0].as_secs_f64());
        let name = format!("{} {}", row.name, phase.name);
        println!("{name:24} {median:10.4} {best:10.4} {:10}", peaks[i]);
    }
}

/// Makes the peak count from now.
fn forget_peak() {
    fs::write("/proc/self/clear_refs", "5").unwrap();
}

fn peak_mib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

fn nothing(_: &Bench) {}

fn unchanged(bench: &Bench) -> String {
    let dockerfile = bench.dockerfile.take();
    bench.dockerfile.set(dockerfile.clone());
    dockerfile
}

fn tiny(bench: &Bench) -> String {
    let nonce = bench.nonce();
    bench.world.file("f", &nonce);
    format!("FROM base\nRUN echo {nonce} >/a\nCOPY f /f\nRUN cat /f >/b\n")
}

fn mid(bench: &Bench) -> String {
    let mut text = String::from("FROM base\n");
    for n in 1..=12 {
        let word = if n == 6 { bench.nonce() } else { "step".into() };
        writeln!(text, "RUN echo {word} {n} >/s{n}").unwrap();
    }
    text
}

fn prime_mid(bench: &Bench) {
    let dockerfile = mid(bench);
    bench.build(&dockerfile);
}

fn small_file(bench: &Bench, number: usize, text: &str) {
    let name = format!("src/d{}/f{number}", number / (SMALL_FILES / SMALL_DIRS));
    bench.world.file(&name, &format!("{:.<64}", format!("{text} {number}")));
}

const SMALL_DOCKERFILE: &str = "FROM base\nCOPY src /src\nRUN ls /src | wc -l >/count\n";

fn small_files(bench: &Bench) -> String {
    let nonce = bench.nonce();
    (0..SMALL_FILES).for_each(|number| small_file(bench, number, &nonce));
    SMALL_DOCKERFILE.into()
}

fn one_small_file(bench: &Bench) -> String {
    small_file(bench, SMALL_FILES / 2, &bench.nonce());
    SMALL_DOCKERFILE.into()
}

fn big_file(bench: &Bench) {
    let mut random = fs::File::open("/dev/urandom").unwrap();
    let mut out = fs::File::create(bench.world.context.path().join("big")).unwrap();
    std::io::copy(&mut std::io::Read::take(&mut random, 1024 * MIB as u64), &mut out).unwrap();
}

fn change_first_bytes(bench: &Bench, name: &str) {
    let path = bench.world.context.path().join(name);
    let mut file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all(bench.nonce().as_bytes()).unwrap();
}

fn big_file_in_place(bench: &Bench) -> String {
    change_first_bytes(bench, "big");
    "FROM base\nCOPY big /big\n".into()
}

fn stages(bench: &Bench) -> String {
    let (nonce, mut text) = (bench.nonce(), String::new());
    for n in 0..STAGES {
        writeln!(text, "FROM base AS s{n}\nRUN echo {nonce} {n} >/o{n} && sleep 0.5").unwrap();
    }
    text.push_str("FROM base\n");
    for n in 0..STAGES {
        writeln!(text, "COPY --from=s{n} /o{n} /o{n}").unwrap();
    }
    text
}

fn many_steps(bench: &Bench) -> String {
    let (nonce, mut text) = (bench.nonce(), String::from("FROM base\n"));
    for n in 0..STEPS {
        writeln!(text, "RUN echo {nonce} {n}").unwrap();
    }
    text
}

/// Writes the archive without making its files: ext4 is slow to make files where as many were
/// deleted within the last minutes.
fn archive_of_files(bench: &Bench) {
    let file = fs::File::create(bench.world.context.path().join("files.tar")).unwrap();
    let mut archive = tar::Builder::new(std::io::BufWriter::new(file));
    for number in 0..UNPACKED_FILES {
        let content = format!("{number:x<600}");
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        let path = format!("d{}/f{number}", number / 300);
        archive.append_data(&mut header, path, content.as_bytes()).unwrap();
    }
    archive.into_inner().unwrap().flush().unwrap();
}

fn unpack(bench: &Bench) -> String {
    format!(
        "FROM base\nRUN --mount=type=bind,target=/ctx mkdir /out && tar -xf /ctx/files.tar -C /out && echo {} >/n\n",
        bench.nonce()
    )
}

fn text_layer(bench: &Bench) {
    let words: Vec<String> = (0..4096u64)
        .map(|n| format!("{:07x}", n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 36))
        .collect();
    let path = bench.world.context.path().join("text");
    let mut out = std::io::BufWriter::new(fs::File::create(path).unwrap());
    writeln!(out, "{}", bench.nonce()).unwrap();
    let (mut line, mut bytes) = (0, 0);
    while bytes < 128 * MIB {
        let picked: Vec<&str> = (0..2048)
            .map(|n| words[(line * 31 + n * n * 7 + (line >> 5)) % 4096].as_str())
            .collect();
        let text = picked.join(" ");
        bytes += text.len() + 1;
        writeln!(out, "{text}").unwrap();
        line += 1;
    }
    out.flush().unwrap();
}

fn new_first_line(bench: &Bench) -> String {
    change_first_bytes(bench, "text");
    "FROM base\nCOPY text /text\n".into()
}
