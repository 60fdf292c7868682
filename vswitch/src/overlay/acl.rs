//! What a host must be allowed in the store, as commands or rules for the store's administrator.

use cluster::store::StoreKind;

use super::ClusterSettings;

/// The lines to give to the administrator of the store.
pub(crate) fn rights(settings: &ClusterSettings) -> String {
    let prefix = settings.prefix.trim_matches('/');
    let user = settings.access.username.as_deref().unwrap_or("vswitch");
    match settings.store {
        StoreKind::Etcd => format!(
            "etcdctl role add vswitch\n\
             etcdctl role grant-permission vswitch --prefix=true readwrite /{prefix}{slash}\n\
             etcdctl user add {user}\n\
             etcdctl user grant-role {user} vswitch\n\
             etcdctl auth enable    # if it is not yet; it needs a user root",
            slash = if prefix.is_empty() { "" } else { "/" },
        ),
        StoreKind::Consul => format!(
            "consul acl policy create -name vswitch -rules - <<'END'\n\
             key_prefix \"{prefix}{slash}\" {{ policy = \"write\" }}\n\
             session_prefix \"\" {{ policy = \"write\" }}\n\
             END\n\
             consul acl token create -description vswitch -policy-name vswitch",
            slash = if prefix.is_empty() { "" } else { "/" },
        ),
        StoreKind::ZooKeeper => match settings.access.username {
            Some(_) => format!("addauth digest {user}:PASSWORD\ncreate /{prefix}\nsetAcl /{prefix} auth:{user}:cdrwa"),
            None => format!(
                "create /{prefix}\n\
                 setAcl /{prefix} world:anyone:cdrwa    # give `username` and `password-file` for less"
            ),
        },
        StoreKind::Gossip => format!(
            "No one is to be asked: hosts with the same `prefix` and `secret-file` take part.\n\
             Let UDP port {} through between them.",
            settings.gossip_port
        ),
        StoreKind::Memory => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::ClusterTable;
    use super::*;

    #[test]
    fn each_store_is_told_in_its_own_words_where_the_keys_are() {
        let of = |store: &str, endpoint: &str| {
            let text = format!(
                "store = \"{store}\"\nunderlay = \"192.0.2.1\"\nnode = \"a\"\nprefix = \"lab/x\"\nendpoints = [\"{endpoint}\"]"
            );
            rights(&toml::from_str::<ClusterTable>(&text).unwrap().check().unwrap())
        };
        assert!(of("etcd", "http://192.0.2.1:2379").contains("--prefix=true readwrite /lab/x/\n"));
        assert!(of("consul", "http://192.0.2.1:8500").contains("key_prefix \"lab/x/\" {"));
        assert!(of("zookeeper", "192.0.2.1:2181").contains("create /lab/x\n"));
    }
}
