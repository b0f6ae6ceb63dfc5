use invivo_image::LiveAddr;
use invivo_patch::{Entry, Step};

use super::{Choice, Form, choose, is_prepared};

const ENTRY: LiveAddr = LiveAddr(0x1000);

fn entry(code: &[u8], padding: u32) -> Entry {
    Entry {
        clear: u32::try_from(code.len()).unwrap(),
        pads: vec![(-i64::from(padding), padding)],
        tail: 0,
        steps: Step::all(code),
        again: false,
    }
}

fn choice(code: &[u8], padding: u32) -> Choice {
    choose(
        &entry(code, padding),
        ENTRY,
        code.len() as u64,
        &mut Vec::new(),
    )
    .unwrap()
}

#[test]
fn a_long_first_instruction_takes_the_jump_alone() {
    // mov eax, 1; ret
    let hook = choice(&[0xb8, 1, 0, 0, 0, 0xc3], 0);
    assert_eq!((hook.form, hook.offset, hook.length), (Form::Jump, 0, 5));
}

#[test]
fn endbr64_stays() {
    // endbr64; mov eax, 1; ret
    let hook = choice(&[0xf3, 0x0f, 0x1e, 0xfa, 0xb8, 1, 0, 0, 0, 0xc3], 0);
    assert_eq!((hook.form, hook.offset), (Form::Jump, 4));
}

#[test]
fn a_short_instruction_uses_the_padding_before_it() {
    // xor eax, eax; ret
    let hook = choice(&[0x31, 0xc0, 0xc3], 7);
    assert_eq!(hook.form, Form::PadJump);
    let writes = hook.writes(LiveAddr(0x1000), LiveAddr(0x2000)).unwrap();
    assert_eq!(writes[0], (LiveAddr(0xffb), vec![0xe9, 0x00, 0x10, 0, 0]));
    assert_eq!(writes[1], (LiveAddr(0x1000), vec![0xeb, 0xf9]));
}

#[test]
fn pushes_before_the_hook_are_undone_in_reverse() {
    // push r12; push rbx; sub rsp, 8; mov eax, 1
    let code = [0x41, 0x54, 0x53, 0x48, 0x83, 0xec, 8, 0xb8, 1, 0, 0, 0];
    let hook = choice(&code, 0);
    assert_eq!((hook.form, hook.offset), (Form::LateJump, 7));
    let stub = hook
        .landing_stub(LiveAddr(0x1000), LiveAddr(0x1010))
        .unwrap();
    let expected = [
        0x48, 0x8d, 0xa4, 0x24, 8, 0, 0, 0,    // lea rsp, [rsp+8]
        0x5b, // pop rbx
        0x41, 0x5c, // pop r12
        0xe9, 0x00, 0, 0, 0, // jmp 0x1010
    ];
    assert_eq!(stub, expected);
}

#[test]
fn an_argument_that_is_overwritten_cannot_be_undone() {
    // push rbx; mov rdi, rsi; mov eax, 1: the new function needs rdi as it was.
    let code = [0x53, 0x48, 0x89, 0xf7, 0xb8, 1, 0, 0, 0];
    assert_eq!(choice(&code, 0).form, Form::Overwrite);
}

#[test]
fn a_saved_register_may_be_overwritten() {
    // push rbx; mov rbx, rdi; mov eax, 1
    let code = [0x53, 0x48, 0x89, 0xfb, 0xb8, 1, 0, 0, 0];
    let hook = choice(&code, 0);
    assert_eq!((hook.form, hook.offset), (Form::LateJump, 4));
}

#[test]
fn a_loop_into_the_first_bytes_forbids_the_hook() {
    // push rbx; push rbp; dec ecx; jne (to the push rbp)
    let code = [0x53, 0x55, 0xff, 0xc9, 0x75, 0xfb, 0xc3];
    let mut entry = entry(&code, 0);
    entry.clear = 1;
    assert!(choose(&entry, ENTRY, code.len() as u64, &mut Vec::new()).is_err());
}

#[test]
fn a_lone_return_reaches_into_the_padding_behind_it() {
    let mut entry = entry(&[0xc3], 0);
    assert!(choose(&entry, ENTRY, 1, &mut Vec::new()).is_err());
    entry.tail = 15;
    let hook = choose(&entry, ENTRY, 1, &mut Vec::new()).unwrap();
    assert_eq!((hook.form, hook.length), (Form::Jump, 5));
}

#[test]
fn a_jump_that_is_too_far_is_no_jump() {
    let hook = choice(&[0xb8, 1, 0, 0, 0], 0);
    assert_eq!(hook.writes(LiveAddr(0x1000), LiveAddr(0x2_0000_0000)), None);
}

#[test]
fn two_functions_do_not_share_a_pad() {
    let code = [0x31, 0xc0, 0xc3];
    let mut taken = Vec::new();
    let mut first = entry(&code, 0);
    first.pads = vec![(-13, 13)];
    let second = Entry {
        pads: vec![(-29, 13)],
        ..first.clone()
    };
    let hook = choose(&first, ENTRY, code.len() as u64, &mut taken).unwrap();
    assert_eq!(hook.pad, Some(-5));
    // The second function starts 16 bytes on and sees the same padding.
    let hook = choose(&second, LiveAddr(0x1010), code.len() as u64, &mut taken).unwrap();
    assert_eq!(hook.pad, Some(-26));
}

#[test]
fn a_pad_of_its_own_comes_before_a_neighbours() {
    let code = [0x31, 0xc0, 0xc3];
    let mut entry = entry(&code, 5);
    entry.pads.insert(0, (-21, 5));
    entry.pads.push((11, 5));
    let mut taken = Vec::new();
    let hook = choose(&entry, ENTRY, code.len() as u64, &mut taken).unwrap();
    assert_eq!(hook.pad, Some(-5));
    assert!(is_prepared(&entry));
    // Where it is taken, any other will do.
    let hook = choose(&entry, ENTRY, code.len() as u64, &mut taken).unwrap();
    assert_eq!(hook.pad, Some(-21));
}

#[test]
fn prepared_is_room_before_and_two_bytes_to_replace() {
    let pushes = [0x55, 0x31, 0xc0, 0xc3];
    assert!(!is_prepared(&entry(&pushes, 5)));
    let branch_target = [0xf3, 0x0f, 0x1e, 0xfa, 0x31, 0xc0, 0xc3];
    assert!(is_prepared(&entry(&branch_target, 5)));
    assert!(!is_prepared(&entry(&branch_target, 4)));
}
