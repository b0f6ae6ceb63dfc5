//! What each rule means, for people: `invivo explain`.

use super::{Rule, Severity};

/// What is to be said about a rule.
#[derive(Clone, Copy, Debug)]
pub struct About {
    /// What it demands, in one line.
    pub meaning: &'static str,
    /// Why it matters.
    pub why: &'static str,
    /// What to do where it is broken.
    pub remedy: &'static str,
    /// A change that breaks it.
    pub example: &'static str,
}

impl Rule {
    /// Its id, such as `R-INIT`.
    #[must_use]
    pub fn id(self) -> &'static str {
        match self {
            Rule::Allocation => "R-ALLOC",
            Rule::Binding => "R-BIND",
            Rule::Build => "R-BUILD",
            Rule::Guard => "R-CFG",
            Rule::Constant => "R-CONST",
            Rule::Export => "R-EXPORT",
            Rule::Hook => "R-HOOK",
            Rule::Resolver => "R-IFUNC",
            Rule::Import => "R-IMPORT",
            Rule::InitialValue => "R-INIT",
            Rule::Layout => "R-LAYOUT",
            Rule::Library => "R-LIBRARY",
            Rule::Personality => "R-PERSONALITY",
            Rule::Removed => "R-REMOVED",
            Rule::Resume => "R-RESUME",
            Rule::Signature => "R-SIGNATURE",
            Rule::Size => "R-SIZE",
            Rule::Stack => "R-STACK",
            Rule::Start => "R-START",
            Rule::Static => "R-STATIC",
            Rule::Symbols => "R-SYMBOLS",
            Rule::ThreadLocals => "R-TLS",
            Rule::Unwind => "R-UNWIND",
            Rule::VirtualTable => "R-VTABLE",
        }
    }

    /// What it demands and why.
    #[must_use]
    pub fn about(self) -> About {
        let about = |meaning, why, remedy, example| About {
            meaning,
            why,
            remedy,
            example,
        };
        match self {
            Rule::Allocation => about(
                "A replaced function asks allocators for the same constant sizes.",
                "What was allocated before the patch has the old size, and new code may reach behind its end.",
                "If nothing that was allocated so outlives a call, allow it; else the fix has to wait for a restart.",
                "`malloc(64)` became `malloc(80)`.",
            ),
            Rule::Binding => about(
                "Every reference of new code leads to exactly one place of the running image.",
                "A patch that is bound to the wrong variable or function destroys what it should repair.",
                "Give variables of one name different names, or keep the code that refers to them as it is.",
                "Two files had a `static int ready`, and the fix moved one of them to a third file.",
            ),
            Rule::Build => about(
                "Both images come from the same compiler, flags and source paths.",
                "Differences of the build hide the fix among hundreds of functions, each of which is a risk.",
                "Build both versions in the same folder with the same compiler and flags.",
                "The base was built with -O2 and the fixed image with -O3.",
            ),
            Rule::Guard => about(
                "Both builds of a Windows image check calls through pointers in the same way (Control Flow Guard), and let the same functions be called so.",
                "New code that does not check its calls takes the guard away; and where a table of call targets does not list a function whose address is known, its call ends the process.",
                "Compile and link both builds with the same /guard options; without XFG, whose digests stand where the jump of a hook goes.",
                "The fixed DLL was linked with /guard:cf and the base was not.",
            ),
            Rule::Constant => about(
                "Constants that live data or other images may point to keep their contents.",
                "New code reads the patch's copy, and whoever has the old address goes on reading the old contents.",
                "Set the pointer anew in code that the fix changes, or allow it if old readers may have the old contents.",
                "`static const int limits[]` changed, and `const int *current = limits;` is a variable.",
            ),
            Rule::Export => about(
                "A library goes on exporting what it exported.",
                "Other images are bound to the old function or variable and go on using it as it was.",
                "Keep the old export beside the new one.",
                "`int parse(const char *)` of a library was renamed.",
            ),
            Rule::Hook => about(
                "The entry of each replaced function has room for a jump.",
                "Without a hook the old code goes on running.",
                "Put the fix into a function that calls it, which can be hooked.",
                "The function has three bytes and no padding around it.",
            ),
            Rule::Resolver => about(
                "What resolvers of indirect functions choose stays as it was.",
                "They have chosen when the program was loaded; new code of theirs is never asked.",
                "Change the functions that are chosen between, not the choice.",
                "A resolver of `copy` now chooses a version for another processor.",
            ),
            Rule::Import => about(
                "What new code needs of other images can be found in the running process.",
                "The loader has bound the imports of the base, at their versions, and binds no others: what is new is looked up when the patch is applied, which is refused where it is not found just once.",
                "Write the fix with functions that the program uses already, at the versions that it uses.",
                "The fix reads `stderr` in a program at fixed addresses, which holds copies of the libraries' variables and none of this one.",
            ),
            Rule::InitialValue => about(
                "A variable keeps its initial value, and a constant is none.",
                "The running one has been initialised, and may have changed since; new code may expect the new value.",
                "Set the value in code that runs again, or allow it if the fix is right with the old value too.",
                "`int limit = 100;` became `int limit = 50;`.",
            ),
            Rule::Layout => about(
                "Types of live data that replaced code uses are known and keep their layout.",
                "Data in the running process are laid out as before, and hold the numbers that old code put there; new code would read and write beside their members, or not know what it finds.",
                "Keep new state in a new variable or behind an existing pointer; else the fix has to wait for a restart.",
                "`struct session` got a member.",
            ),
            Rule::Library => about(
                "The fixed image needs the libraries that the base needs.",
                "The loader has loaded what the base needs, and loads nothing for a patch.",
                "Write the fix without the new library.",
                "The fixed program is linked with -lm.",
            ),
            Rule::Personality => about(
                "Exceptions pass through new code by a routine that the running image uses too.",
                "An exception that finds no routine ends the program. Of a Windows image the routine's tables are followed, too; those of __C_specific_handler, __CxxFrameHandler3 and __CxxFrameHandler4 are known.",
                "Write the fix without what needs the routine: clean-ups, catches, destructors.",
                "A function of a C program, built with -fexceptions, got its first `__attribute__((cleanup))`.",
            ),
            Rule::Removed => about(
                "Nothing that stays in use has vanished from the fixed image.",
                "A function whose address is known elsewhere can still be called, with the defect that the fix removed.",
                "Keep the function with a body that refuses its work.",
                "A handler that was registered in a table was deleted.",
            ),
            Rule::Resume => about(
                "Places inside functions that live data name stay what they are.",
                "A frame of a coroutine that waits names the place where it goes on by a number, which may be another place in new code. A kept `&&label` leads back into old code, with the frame of new code.",
                "If each `co_await` and `co_yield` comes in the same order as before, allow it; else the fix has to wait until no such call waits. Keep labels in a constant table that only their function uses.",
                "A `co_yield` was put before another one of a coroutine that clang compiled; `task->next = &&again;`.",
            ),
            Rule::Signature => about(
                "A function that code outside the patch calls keeps its parameters and its result.",
                "Callers that are not replaced hand over what the old version expects.",
                "Add a function with the new signature and let the old one call it.",
                "An exported `int check(int)` became `int check(int, int)`.",
            ),
            Rule::Size => about(
                "A variable keeps its size, and begins where new code can use it.",
                "Its neighbours lie directly behind it in the running process, and it cannot move: an instruction that wants it aligned faults.",
                "Keep what is new in a new variable; else the fix has to wait for a restart.",
                "`char name[16];` became `char name[32];`.",
            ),
            Rule::Stack => about(
                "A replaced function returns and is called again.",
                "A frame that is inside the old body runs it to its end, whatever is hooked.",
                "Put the fix into a function that the loop calls.",
                "The fix changed `main`, or a thread's loop.",
            ),
            Rule::Start => about(
                "What runs while the program starts or ends, or once at a first use, stays as it was.",
                "Constructors and initialisers behind a guard have run; a change of what only they do comes too late. What main does once, and what made a static and is called elsewhere, too, is told as a note.",
                "Do the same in code that runs again; else the fix has to wait for a restart.",
                "A function with `__attribute__((constructor))` reads another default.",
            ),
            Rule::Static => about(
                "A new variable lives in the patch and starts with its initial value.",
                "It knows nothing of what happened before the patch became live.",
                "See that its initial value is right in the middle of a run.",
                "The fix counts attempts in a new `static int attempts`.",
            ),
            Rule::Symbols => about(
                "Both images have a full symbol table.",
                "Functions and variables can be paired by their names only.",
                "Give the debug files with --base-debug and --fixed-debug, or install them.",
                "The program is stripped, and its debug package is not installed.",
            ),
            Rule::ThreadLocals => about(
                "Thread-local variables keep their places, sizes, initial values and users.",
                "Running threads have their blocks, which cannot be laid out anew.",
                "Write the fix without a new thread-local variable.",
                "The fix added a `static __thread int depth`.",
            ),
            Rule::Unwind => about(
                "New code has complete unwind data.",
                "Exceptions, panics, debuggers and the proof that no thread is inside depend on them.",
                "Build with -fasynchronous-unwind-tables, as is usual; assembly has .cfi or, for Windows, .seh directives.",
                "A function in assembly has no .cfi directives.",
            ),
            Rule::VirtualTable => about(
                "Tables of virtual functions keep their size and their entries.",
                "Live objects point to the running image's table and go on calling what it names.",
                "Change the bodies of virtual functions, not which there are.",
                "`class Session` overrides a function that it inherited.",
            ),
        }
    }

    /// What findings of it may mean: that it forbids the patch, or that a person should know.
    #[must_use]
    pub fn severities(self) -> &'static [Severity] {
        match self {
            Rule::Stack | Rule::Static => &[Severity::Note],
            Rule::Build
            | Rule::Constant
            | Rule::Export
            | Rule::Hook
            | Rule::Import
            | Rule::Layout
            | Rule::Removed
            | Rule::Signature
            | Rule::Start => &[Severity::Refuse, Severity::Note],
            _ => &[Severity::Refuse],
        }
    }

    /// True if a person may judge that a broken rule does no harm: what is not known, or
    /// cannot be made, is not a matter of judgement.
    #[must_use]
    pub fn may_be_allowed(self) -> bool {
        !matches!(
            self,
            Rule::Symbols | Rule::Binding | Rule::Unwind | Rule::ThreadLocals | Rule::Hook
        )
    }
}
