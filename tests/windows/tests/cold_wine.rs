//! A library that is patched on disk, in processes of Windows: what runs goes on with the old file,
//! what starts next is fixed, and the old file comes back.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, ensure};
use live_tests::invivo::invivo;
use live_tests::workdir::in_workdir;
use windows_tests::{Build, asker, build};

/// A process that has loaded the library.
struct Asked {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Asked {
    fn start(program: &Path, library: &Path) -> Result<Asked> {
        let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let prefix = std::path::absolute(workspace.join(target).join("windows/wine"))?;
        std::fs::create_dir_all(&prefix)?;
        let mut command = Command::new("/usr/lib/wine/wine64");
        command
            .arg(program)
            .arg(format!("Z:{}", library.display()).replace('/', "\\"))
            .env("WINEPREFIX", prefix)
            .env("WINEDEBUG", "-all")
            // Nothing of these is needed, and to install them it would ask.
            .env("WINEDLLOVERRIDES", "mscoree,mshtml=")
            .env_remove("LD_LIBRARY_PATH")
            .env_remove("DISPLAY")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = command.spawn().context("wine64 is not installed")?;
        let input = child.stdin.take().context("no input")?;
        let output = BufReader::new(child.stdout.take().context("no output")?);
        Ok(Asked {
            child,
            input,
            output,
        })
    }

    /// What a function answers, and whether the code that runs has unwind data.
    fn ask(&mut self, question: &str) -> Result<(i32, bool)> {
        self.input.write_all(format!("{question}\n").as_bytes())?;
        self.input.flush()?;
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        let (answer, unwound) = line.trim().split_once(' ').with_context(|| line.clone())?;
        Ok((answer.parse()?, unwound == "1"))
    }

    fn expect(&mut self, answers: [i32; 2]) -> Result<()> {
        let found = [self.ask("answer 5")?, self.ask("answer -1")?];
        let wanted = answers.map(|answer| (answer, true));
        ensure!(found == wanted, "{found:?}, {wanted:?} are wanted");
        Ok(())
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The new function imports what the old one did, counts in a new variable, and calls what did not
/// change.
const OLD: [i32; 2] = [28, 16];
const NEW: [i32; 2] = [1028, -1];

#[test]
fn a_library_is_fixed_for_what_starts_next() -> Result<()> {
    in_workdir("cold-wine", |dir| {
        let imports = |how: Build| how.importing(&["GetTickCount"]).with("-DIMPORTS").roomy();
        let base = build(dir, "base", "service", &imports(Build::base()))?.path;
        let fixed = build(dir, "fixed", "service", &imports(Build::fixed("answer")))?.path;
        let program = asker(dir)?;
        let image = dir.join("service.cold");
        let [old, new, out] = [&base, &fixed, &image].map(|path| path.display().to_string());
        for hook in ["short", "triple"] {
            let words = [
                "build", &old, &new, "-o", &out, "--format", "cold", "--hook", hook,
            ];
            invivo(&words)?.expect_code(0)?;
            let mut running = Asked::start(&program, &base)?;
            running.expect(OLD)?;
            invivo(&["install", &out, &old])?.expect_code(0)?;
            Asked::start(&program, &base)?.expect(NEW)?;
            running.expect(OLD)?;
            invivo(&["uninstall", &old])?.expect_code(0)?;
            Asked::start(&program, &base)?.expect(OLD)?;
            running.expect(OLD)?;
            ensure!(
                running.ask("get_requests 0")?.0 == 6,
                "its state is its own"
            );
        }
        Ok(())
    })
}
