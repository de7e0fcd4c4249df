//! Documents that are kept beside the samples.

use super::Subject;
use crate::{model::TenantId, storage::DocumentKind};

impl Subject<'_> {
    /// A tenant named after the running case.
    fn tenant_named(&self, name: &str) -> TenantId {
        TenantId::new(&format!("{}-{name}", self.tenant)).expect("a case's name is a tenant's")
    }

    async fn put_document(&self, tenant: &TenantId, text: Option<&str>) {
        let put = self.store.put_document(tenant, DocumentKind::Limits, text.map(str::to_owned));
        put.await.expect("a document is kept");
    }

    /// The documents of this case's tenants, those of other cases left out.
    async fn documents(&self) -> Vec<(TenantId, String)> {
        let mut all = self.store.documents(DocumentKind::Limits).await.expect("documents are answered");
        assert!(all.is_sorted_by(|a, b| a.0 < b.0), "documents come by tenant");
        all.retain(|(tenant, _)| tenant.as_str().starts_with(self.tenant.as_str()));
        all
    }
}

pub(super) async fn a_document_is_kept_and_replaced_and_removed(s: &mut Subject<'_>) {
    let (a, b) = (s.tenant_named("a"), s.tenant_named("b.(*)!'"));
    let pair = |tenant: &TenantId, text: &str| (tenant.clone(), text.to_owned());
    assert_eq!(s.documents().await, []);
    s.put_document(&a, None).await;
    let odd = "{\"é\": \"' \\\\ \\n\t\0\n\"}";
    s.put_document(&b, Some(odd)).await;
    s.put_document(&a, Some("1")).await;
    s.settle().await;
    assert_eq!(s.documents().await, [pair(&a, "1"), pair(&b, odd)]);
    // Back to what it was before: no memory of having been written takes it for a repetition.
    for text in ["2", "1", "2"] {
        s.put_document(&a, Some(text)).await;
    }
    s.put_document(&b, None).await;
    s.settle().await;
    assert_eq!(s.documents().await, [pair(&a, "2")]);
    s.put_document(&b, Some("")).await;
    let long = "x".repeat(1 << 20);
    s.put_document(&a, Some(&long)).await;
    s.settle().await;
    assert_eq!(s.documents().await, [pair(&a, &long), pair(&b, "")]);
    s.put_document(&a, None).await;
    s.put_document(&b, None).await;
    s.settle().await;
    assert_eq!(s.documents().await, []);
}

pub(super) async fn documents_are_put_at_once_and_one_is_left(s: &mut Subject<'_>) {
    let (contested, texts) = (s.tenant_named("contested"), ["1", "2", "3", "4", "5", "6", "7", "8"]);
    let own: Vec<TenantId> = texts.iter().map(|text| s.tenant_named(text)).collect();
    let puts = own.iter().zip(texts).map(|(own, text)| async {
        s.put_document(own, Some(text)).await;
        s.put_document(&contested, Some(text)).await;
    });
    futures_util::future::join_all(puts).await;
    s.settle().await;
    let mut left = s.documents().await;
    let at = left.iter().position(|(tenant, _)| *tenant == contested).expect("one of them was kept");
    let (_, text) = left.remove(at);
    assert!(texts.contains(&text.as_str()), "{text}");
    let all: Vec<(TenantId, String)> = own.into_iter().zip(texts.map(str::to_owned)).collect();
    assert_eq!(left, all);
    s.settle().await;
    assert!(s.documents().await.contains(&(contested, text)), "it stays the one");
}
