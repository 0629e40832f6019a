//! The part of a forwarded request's head that its signature covers.

use smallvec::SmallVec;

use super::Head;

/// Fields that proxies add and change, and nothing here reads. Beside them vary: framing and
/// hop-by-hop fields, `Host`, `Forwarded`, `X-Forwarded-*`, `X-Request-Id` and `traceparent`.
const VARYING: [&[u8]; 4] = [b"via", b"tracestate", b"max-forwards", b"cdn-loop"];

impl Head {
    /// All of the head that decides what the request means, in one form whatever proxies do to it:
    /// path and query, then a line `name:value` for each end-to-end field, by name; those of one
    /// name in their order.
    #[must_use]
    pub fn signed(&self) -> Vec<u8> {
        let target = self.path.start as usize..self.query.end as usize;
        let fields = self.fields.iter().filter(|field| !field.kind.varies());
        let mut fields: SmallVec<[(Vec<u8>, &[u8]); 16]> = fields
            .map(|field| {
                let name = field.name.of(&self.bytes).to_ascii_lowercase();
                (name, field.value.of(&self.bytes))
            })
            .filter(|(name, _)| !VARYING.contains(&name.as_slice()))
            .collect();
        fields.sort_by(|a, b| a.0.cmp(&b.0));
        let mut out = Vec::with_capacity(self.bytes.len());
        out.extend_from_slice(self.bytes.get(target).unwrap_or_default());
        for (name, value) in &fields {
            for part in [b"\n", name.as_slice(), b":", value] {
                out.extend_from_slice(part);
            }
        }
        out
    }
}
