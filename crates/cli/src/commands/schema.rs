//! `invivo schema`

use schemars::schema_for;

use crate::arguments::{Schema, SchemaOf};
use crate::commands::{
    audit, blocking, build, check, diff, exchange, explain, final_image, image, inspect, list,
    marks, payload, payload_dump, plan, status, symbols, trust, xen,
};
use crate::failure::Failure;
use crate::live::Outcomes;

pub(crate) fn run(schema: &Schema) -> Result<u8, Failure> {
    let schema = match schema.of {
        SchemaOf::Audit => schema_for!(audit::Audited),
        SchemaOf::Diff => schema_for!(diff::Diff),
        SchemaOf::Build => schema_for!(build::Built),
        SchemaOf::Exchange => schema_for!(exchange::Exchanged),
        SchemaOf::Final => schema_for!(final_image::FinalDump),
        SchemaOf::Inspect => schema_for!(inspect::Dump),
        SchemaOf::Image => schema_for!(image::ImageDump),
        SchemaOf::Object => schema_for!(marks::ObjectDump),
        SchemaOf::Check => schema_for!(check::Checked),
        SchemaOf::Plan => schema_for!(plan::Plans),
        SchemaOf::WindowsPlan => schema_for!(crate::planned::WindowsPlans),
        SchemaOf::Progress => schema_for!(crate::output::Event),
        SchemaOf::Outcome => schema_for!(Outcomes),
        SchemaOf::Blocking => schema_for!(blocking::Blocking),
        SchemaOf::Status => schema_for!(status::Overview),
        SchemaOf::List => schema_for!(list::Listing),
        SchemaOf::Symbols => schema_for!(symbols::Named),
        SchemaOf::Explain => schema_for!(explain::Rules),
        SchemaOf::Xen => schema_for!(xen::Payloads),
        SchemaOf::Signature => schema_for!(trust::Signature),
        SchemaOf::XenOutcome => schema_for!(xen::XenOutcome),
        SchemaOf::Payload => schema_for!(payload_dump::PayloadDump),
        SchemaOf::CheckPayload => schema_for!(payload::CheckedPayload),
    };
    let text = serde_json::to_string_pretty(&schema)
        .map_err(|error| Failure::new(70, format!("cannot write JSON: {error}")))?;
    anstream::println!("{text}");
    Ok(0)
}
