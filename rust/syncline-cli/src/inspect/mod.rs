use clap::Args;
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {}
pub(crate) fn run(_: InspectArgs) -> Result<(), crate::failure::Failure> {
    Ok(())
}
