//! The report in a browser: what it shows, how it is used, and what it withstands.

use std::fmt::Write;

use anyhow::{Result, ensure};
use report_tests::browser::{Browser, Scheme, key};
use report_tests::pair::{folder, report, report_with};
use serde_json::Value;

const JUDGED: &str = "\
#include <stdio.h>
#ifdef FIXED
volatile int limit = 50;
#else
volatile int limit = 100;
#endif
__attribute__((noinline)) int answer(int asked)
{
#ifdef FIXED
    return asked > limit ? limit : asked;
#else
    return asked + limit;
#endif
}
int main(int argc, char **argv)
{
    (void)argv;
    return printf(\"%d\\n\", answer(argc)) < 0;
}
";
const REFUSED: &str = include_str!("../programs/refused.c");
const ACCEPTED: &str = include_str!("../programs/accepted.c");

/// Names of the functions that can be seen.
const SHOWN: &str = "return [...document.querySelectorAll('details.function')]
    .filter(card => card.checkVisibility()).map(card => card.querySelector('.title').textContent)";

fn names(browser: &Browser) -> Result<Vec<String>> {
    Ok(serde_json::from_value(browser.script(SHOWN)?)?)
}

fn text(browser: &Browser, script: &str) -> Result<String> {
    Ok(serde_json::from_value(browser.script(script)?)?)
}

/// What the focus is on: the function's name, or the element's id or tag.
fn focus(browser: &Browser) -> Result<String> {
    text(
        browser,
        "const at = document.activeElement;
         return at.querySelector('.title')?.textContent ?? (at.id || at.tagName)",
    )
}

fn is_true(browser: &Browser, condition: &str) -> Result<()> {
    let answer = browser.script(&format!("return {condition}"))?;
    ensure!(answer == Value::Bool(true), "{condition}: {answer}");
    Ok(())
}

#[test]
fn a_refused_pair_is_shown_and_its_names_do_nothing() -> Result<()> {
    let folder = folder("refused")?;
    let (page, code) = report(&folder, REFUSED)?;
    ensure!(code == Some(1), "exit code {code:?}");
    let browser = Browser::start(&folder)?;
    browser.prefer(Scheme::Light)?;
    browser.open(&page)?;

    // The verdict comes first, and says itself in words.
    is_true(
        &browser,
        "document.querySelector('h1').textContent.includes('Not to be patched live')",
    )?;
    is_true(
        &browser,
        "document.querySelector('.finding.refuse .rule').textContent.startsWith('R-')",
    )?;
    is_true(
        &browser,
        "document.querySelector('.finding.refuse .severity').textContent.includes('forbids')",
    )?;
    // The layout of the type before and after.
    is_true(
        &browser,
        "[...document.querySelectorAll('.layout tr.changed ins')].some(one => one.textContent.includes('8 limit: long'))",
    )?;

    // Whatever a symbol is called, it is a text.
    let all = names(&browser)?;
    for name in [
        "<img src=x onerror=alert(1)>",
        "</script></style><script>alert(2)</script>",
    ] {
        ensure!(
            all.iter().any(|one| one == name),
            "{name} is not in {all:?}"
        );
    }
    ensure!(all.iter().any(|name| name == "pay\\u{202e}resu"), "{all:?}");
    is_true(
        &browser,
        "document.querySelectorAll('img, iframe, object, embed, link').length === 0",
    )?;
    is_true(
        &browser,
        "document.scripts.length === 1 && document.querySelectorAll('style').length === 1",
    )?;
    is_true(
        &browser,
        "![...document.querySelectorAll('*')].some(one => [...one.attributes].some(a => a.name.startsWith('on')))",
    )?;
    // And a script that broke out all the same would not be run.
    is_true(
        &browser,
        "(() => { const one = document.createElement('script'); one.textContent = 'window.ran = true';
            document.body.append(one); one.remove(); return window.ran === undefined })()",
    )?;
    let blocked = browser.console()?;
    ensure!(
        blocked.len() == 1 && blocked[0].contains("Content Security Policy"),
        "the policy alone may speak, and once: {blocked:?}"
    );

    // The listing: real instructions, their lines, what differs, where calls lead.
    browser.click("#open-all")?;
    let line = 1 + REFUSED
        .lines()
        .take_while(|line| !line.contains("return printf"))
        .count();
    let source = format!("program.c:{line}");
    is_true(
        &browser,
        &format!(
            "[...document.querySelectorAll('.listing .s')].some(one => one.textContent === '{source}')"
        ),
    )?;
    is_true(
        &browser,
        "[...document.querySelectorAll('.listing .added ins')].some(one => one.textContent.includes('0x1000'))",
    )?;
    is_true(
        &browser,
        "[...document.querySelectorAll('.listing mark')].some(one => one.textContent === '\"welcome back\"')",
    )?;
    is_true(
        &browser,
        "[...document.querySelectorAll('.listing .same .i a')].some(one => one.textContent.startsWith('<img'))",
    )?;
    is_true(
        &browser,
        "[...document.querySelectorAll('#removed li')].some(one => one.textContent.trim() === 'unchecked')",
    )?;
    is_true(
        &browser,
        "[...document.querySelectorAll('.sort.new')].length === 1",
    )?;
    is_true(
        &browser,
        "document.querySelectorAll('svg a').length >= 4 && document.querySelectorAll('svg .edges path').length >= 3",
    )?;
    browser.picture(&folder.join("light.png"))?;

    let ground = "return getComputedStyle(document.body).backgroundColor";
    let light = text(&browser, ground)?;
    browser.prefer(Scheme::Dark)?;
    let dark = text(&browser, ground)?;
    ensure!(light != dark, "light and dark are both {light}");
    for scheme in [Scheme::Light, Scheme::Dark] {
        browser.prefer(scheme)?;
        let faint = browser.script(FAINT)?;
        ensure!(
            faint == Value::Array(Vec::new()),
            "{scheme:?}: too faint to read: {faint}"
        );
    }
    browser.picture(&folder.join("dark.png"))?;
    is_true(
        &browser,
        "performance.getEntriesByType('resource').length === 0",
    )?;
    let console = browser.console()?;
    ensure!(console.is_empty(), "{console:?}");
    Ok(())
}

/// Texts with a contrast below 4.5 to 1 (WCAG 2, level AA) on the ground that is painted behind them.
const FAINT: &str = r"
    const channels = color => color.match(/[\d.]+/g).map(Number);
    const luminance = ([r, g, b]) => [r, g, b]
        .map(c => c / 255).map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
        .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
    const ground = one => {
        for (let at = one; at; at = at.parentElement) {
            const color = channels(getComputedStyle(at).backgroundColor);
            if ((color[3] ?? 1) > 0) return color;
        }
        return [255, 255, 255];
    };
    const faint = new Set();
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const one = walker.currentNode.parentElement;
        if (!walker.currentNode.data.trim() || !one.checkVisibility() || one.closest('svg, script')) continue;
        const style = getComputedStyle(one);
        const behind = ground(one);
        const opacity = Number(style.opacity);
        const ink = channels(style.color).map((c, i) => c * opacity + (behind[i] ?? c) * (1 - opacity));
        const [dim, bright] = [luminance(ink), luminance(behind)].sort((a, b) => a - b);
        if ((bright + 0.05) / (dim + 0.05) < 4.5) faint.add(`${one.tagName}.${one.className}: ${style.color}`);
    }
    return [...faint]";

#[test]
fn a_keyboard_is_enough() -> Result<()> {
    let folder = folder("keyboard")?;
    let (page, _) = report(&folder, REFUSED)?;
    let browser = Browser::start(&folder)?;
    browser.open(&page)?;
    let all = names(&browser)?;
    ensure!(all.len() >= 6, "{all:?}");

    // The first stop leads past everything to the functions.
    browser.press(key::TAB)?;
    is_true(&browser, "document.activeElement.className === 'skip'")?;
    is_true(
        &browser,
        "document.activeElement.getBoundingClientRect().left >= 0",
    )?;

    browser.press("j")?;
    ensure!(focus(&browser)? == all[0], "{}", focus(&browser)?);
    // The focus can be seen.
    is_true(
        &browser,
        "getComputedStyle(document.activeElement).outlineStyle !== 'none'",
    )?;
    browser.press("jj")?;
    ensure!(focus(&browser)? == all[2]);
    browser.press("k")?;
    ensure!(focus(&browser)? == all[1]);
    browser.press(key::DOWN)?;
    ensure!(focus(&browser)? == all[2]);
    let open = "document.activeElement.parentElement.open === true";
    is_true(&browser, &format!("!({open})"))?;
    browser.press(key::ENTER)?;
    is_true(&browser, open)?;
    browser.press(key::ENTER)?;
    is_true(&browser, &format!("!({open})"))?;

    // Letters in the search are letters.
    browser.press("/")?;
    ensure!(focus(&browser)? == "search");
    browser.press("GREETING")?;
    ensure!(names(&browser)? == ["greeting"]);
    let found = text(
        &browser,
        "return document.getElementById('found').textContent",
    )?;
    ensure!(found == format!("1 of {}", all.len()), "{found}");
    is_true(
        &browser,
        "document.querySelectorAll('svg a.dim').length === document.querySelectorAll('svg a').length",
    )?;
    browser.press("zz")?;
    ensure!(names(&browser)?.is_empty());
    is_true(
        &browser,
        "document.getElementById('nothing').checkVisibility()",
    )?;
    browser.press(key::ESCAPE)?;
    ensure!(names(&browser)? == all);

    browser.press("/serve")?;
    browser.press(key::ENTER)?;
    ensure!(focus(&browser)? == "serve");
    browser.press(key::ENTER)?;
    is_true(&browser, open)?;

    // From the picture to the function, though the search had put it aside.
    browser.press("g")?;
    is_true(&browser, "document.activeElement.closest('svg') !== null")?;
    is_true(&browser, "document.querySelectorAll('svg .lit').length > 0")?;
    let led = text(
        &browser,
        "return document.activeElement.getAttribute('href').slice(1)",
    )?;
    browser.press(key::ENTER)?;
    is_true(&browser, &format!("document.getElementById('{led}').open"))?;
    is_true(
        &browser,
        &format!("document.getElementById('{led}').contains(document.activeElement)"),
    )?;
    let console = browser.console()?;
    ensure!(console.is_empty(), "{console:?}");
    Ok(())
}

#[test]
fn an_accepted_pair_says_so_and_folds_what_is_equal() -> Result<()> {
    let folder = folder("accepted")?;
    // Equal instructions far from the fix.
    let long = ACCEPTED.replace("return printf", "for (int i = 0; i < 3; i++) printf(\"%d %d\\n\", i * asked, i / (asked + 1)); puts(\"a\"); puts(\"b\"); puts(\"c\"); puts(\"d\"); puts(\"e\");\n    return printf");
    let (page, code) = report(&folder, &long)?;
    ensure!(code == Some(0), "exit code {code:?}");
    let browser = Browser::start(&folder)?;
    browser.open(&page)?;
    is_true(
        &browser,
        "document.querySelector('h1').textContent.includes('May be patched live')",
    )?;
    ensure!(names(&browser)? == ["answer"]);

    let seen =
        "[...document.querySelectorAll('.listing .i')].filter(one => one.checkVisibility()).length";
    is_true(&browser, &format!("{seen} === 0"))?;
    browser.click("summary")?;
    let folded = browser
        .script(&format!("return {seen}"))?
        .as_u64()
        .unwrap_or(0);
    ensure!(folded > 0, "nothing is listed");
    browser.click(".fold button")?;
    let unfolded = browser
        .script(&format!("return {seen}"))?
        .as_u64()
        .unwrap_or(0);
    ensure!(unfolded > folded, "{folded} and then {unfolded}");
    is_true(
        &browser,
        "document.querySelector('.fold button').getAttribute('aria-expanded') === 'true'",
    )?;
    browser.picture(&folder.join("page.png"))?;
    browser.click("#close-all")?;
    is_true(&browser, &format!("{seen} === 0"))?;
    browser.click("#open-all")?;
    is_true(&browser, &format!("{seen} === {unfolded}"))?;
    let console = browser.console()?;
    ensure!(console.is_empty(), "{console:?}");
    Ok(())
}

/// Whoever reads the page sees what was allowed and why, and that a reason is no HTML.
#[test]
fn a_judgement_is_shown_with_its_reason() -> Result<()> {
    let folder = folder("judged")?;
    let (page, code) = report_with(
        &folder,
        JUDGED,
        &[
            "--allow",
            "R-INIT=limit",
            "--because",
            "<b>set</b> anew each minute",
        ],
    )?;
    ensure!(code == Some(0), "exit code {code:?}");
    let browser = Browser::start(&folder)?;
    browser.open(&page)?;
    let shown = text(
        &browser,
        "return document.querySelector('.because').textContent",
    )?;
    ensure!(shown.contains("<b>set</b> anew each minute"), "{shown}");
    is_true(&browser, "!document.querySelector('.finding.refuse')")?;
    is_true(
        &browser,
        "document.querySelector('.finding .severity').textContent.includes('allowed')",
    )?;
    let console = browser.console()?;
    ensure!(console.is_empty(), "{console:?}");
    Ok(())
}

#[test]
fn a_large_hot_set_is_cut_and_the_page_says_so() -> Result<()> {
    const FUNCTIONS: usize = 420;
    let folder = folder("large")?;
    let mut source =
        String::from("#ifdef FIXED\n#define N 3\n#else\n#define N 2\n#endif\nvolatile int sink;\n");
    for number in 0..FUNCTIONS {
        let calls = if number > 0 {
            format!("f{}(n);", number * 7 % number)
        } else {
            String::new()
        };
        writeln!(
            source,
            "__attribute__((noinline)) void f{number}(int n) {{ sink += n * N + {number}; {calls} }}"
        )?;
    }
    writeln!(
        source,
        "int main(int n, char **v) {{ (void)v; f{}(n); return 0; }}",
        FUNCTIONS - 1
    )?;
    let (page, _) = report(&folder, &source)?;
    let size = std::fs::metadata(&page)?.len();
    ensure!(size < 8 << 20, "{size} bytes");
    let browser = Browser::start(&folder)?;
    browser.open(&page)?;
    let cuts = text(
        &browser,
        "return document.getElementById('cuts').textContent",
    )?;
    ensure!(cuts.contains("the instructions of 120 functions"), "{cuts}");
    ensure!(names(&browser)?.len() == FUNCTIONS);
    is_true(&browser, "document.querySelectorAll('svg a').length <= 120")?;
    browser.press("/f419")?;
    ensure!(names(&browser)? == ["f419"]);
    browser.picture(&folder.join("page.png"))?;
    let console = browser.console()?;
    ensure!(console.is_empty(), "{console:?}");
    Ok(())
}
