pub(crate) fn run(_workspace: &crate::workspace::Workspace) -> anyhow::Result<bool> {
    Ok(true)
}
