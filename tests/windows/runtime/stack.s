# Touches each page of a frame that is about to be made, from the top down: rax is its size, and
# no register may change.
.intel_syntax noprefix
.text
.globl __chkstk
__chkstk:
  push rcx
  push rax
  lea rcx, [rsp+24]
  cmp rax, 0x1000
  jb 2f
1: sub rcx, 0x1000
  test [rcx], rcx
  sub rax, 0x1000
  cmp rax, 0x1000
  ja 1b
2: sub rcx, rax
  test [rcx], rcx
  pop rax
  pop rcx
  ret
