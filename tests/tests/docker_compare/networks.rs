//! Networks made, listed, looked at and removed.

use super::{Topic, differs, same};

pub(super) const TOPIC: Topic = Topic {
    name: "networks",
    checks: &[
        same(
            "create prints the network's id",
            "docker network create -d $d --subnet 10.$n.1.0/24 --label tier=$d $d-net | grep -Ecx '[0-9a-f]{64}'",
            "1",
        ),
        same(
            "inspect: driver, scope, flags",
            "docker network inspect -f '{{.Driver}} {{.Scope}} {{.Internal}} {{.EnableIPv6}} {{.Attachable}}' $d-net",
            "$d local false false false",
        ),
        same(
            "inspect: addresses",
            "docker network inspect -f '{{json .IPAM.Config}}' $d-net",
            r#"[{"Subnet":"10.$n.1.0/24"}]"#,
        ),
        same("inspect: labels", "docker network inspect -f '{{json .Labels}}' $d-net", r#"{"tier":"$d"}"#),
        same(
            "ls by driver and name",
            "docker network ls --filter driver=$d --filter name=$d-net --format '{{.Name}} {{.Driver}} {{.Scope}}'",
            "$d-net $d local",
        ),
        same("ls by label", "docker network ls --filter label=tier=$d --format '{{.Name}}'", "$d-net"),
        same(
            "a name that exists",
            "refused docker network create -d $d --subnet 10.$n.2.0/24 $d-net",
            "1 Error response from daemon: network with name $d-net already exists",
        ),
        same(
            "a subnet that overlaps",
            "refused docker network create -d $d --subnet 10.$n.0.0/16 $d-overlap",
            "1 Error response from daemon: Pool overlaps with other one on this address space",
        )
        .newest("1 Error response from daemon: invalid pool request: Pool overlaps with other one on this address space"),
        same(
            "a subnet that is none",
            "refused docker network create -d $d --subnet 10.$n.1.0/33 $d-bad",
            "1 Error response from daemon: Invalid subnet 10.$n.1.0/33 : invalid CIDR address: 10.$n.1.0/33",
        )
        .newest("1 Error response from daemon: invalid network config:"),
        same(
            "a gateway outside of the subnet",
            "refused docker network create -d $d --subnet 10.$n.2.0/24 --gateway 10.9.9.9 $d-bad",
            "1 no matching subnet for gateway 10.9.9.9",
        ),
        same(
            "gateway, range and reserved addresses",
            "docker network create -d $d --subnet 10.$n.2.0/24 --gateway 10.$n.2.254 --ip-range 10.$n.2.128/28 --aux-address printer=10.$n.2.129 $d-ranges > /dev/null; docker network inspect -f '{{json .IPAM.Config}}' $d-ranges",
            r#"[{"Subnet":"10.$n.2.0/24","IPRange":"10.$n.2.128/28","Gateway":"10.$n.2.254","AuxiliaryAddresses":{"printer":"10.$n.2.129"}}]"#,
        ),
        same(
            "a network without --subnet",
            "docker network create -d $d $d-any > /dev/null; docker network inspect -f '{{len .IPAM.Config}}' $d-any",
            "1",
        ),
        same(
            "--internal",
            "docker network create -d $d --internal --subnet 10.$n.3.0/24 $d-inside > /dev/null; docker network inspect -f '{{.Internal}}' $d-inside",
            "true",
        ),
        same(
            "--ipv6",
            "docker network create -d $d --ipv6 --subnet 10.$n.4.0/24 --subnet fd$n:4::/64 $d-six > /dev/null; docker network inspect -f '{{.EnableIPv6}} {{range .IPAM.Config}}{{.Subnet}} {{end}}' $d-six",
            "true 10.$n.4.0/24 fd$n:4::/64",
        ),
        same(
            "--ipv6 without a subnet for it",
            "refused docker network create -d $d --ipv6 --subnet 10.$n.5.0/24 $d-bad",
            "1 Error response from daemon: could not find an available, non-overlapping IPv6 address pool among the defaults to assign to the network",
        )
        .newest("0 ID"),
        differs(
            "several IPv4 subnets",
            "refused docker network create -d $d --subnet 10.$n.6.0/25 --subnet 10.$n.6.128/25 $d-two | sed 's/ID/made/'",
            "1 Error response from daemon: bridge driver doesn't support multiple subnets",
            "0 made",
            "the gateway of the switch has any number of addresses",
        ),
        same(
            "an option of Docker's is shown",
            "docker network create -d $d --subnet 10.$n.7.0/24 -o com.docker.network.driver.mtu=1400 $d-mtu > /dev/null; docker network inspect -f '{{json .Options}}' $d-mtu",
            r#"{"com.docker.network.driver.mtu":"1400"}"#,
        ),
        same(
            "--config-from",
            "docker network create --config-only --subnet 10.$n.8.0/24 $d-config > /dev/null && docker network create -d $d --config-from $d-config $d-from > /dev/null; docker network inspect -f '{{.Driver}} {{.ConfigFrom.Network}} {{(index .IPAM.Config 0).Subnet}}' $d-from",
            "$d $d-config 10.$n.8.0/24",
        ),
        same(
            "rm of a configuration in use",
            "refused docker network rm $d-config; docker network rm $d-from $d-config",
            "1 Error response from daemon: error while removing network: configuration network \"$d-config\" is in use\n$d-from\n$d-config",
        ),
        same(
            "--scope swarm without a swarm",
            "refused docker network create -d $d --scope swarm $d-swarm",
            "1 Error response from daemon: cannot create a swarm scoped network when swarm is not active",
        ),
        same("inspect of a network that is none", "refused docker network inspect -f '{{.Name}}' $d-none", "1"),
        same(
            "a container on a network that is none",
            "refused docker run --rm --network $d-none busybox true",
            "125 docker: Error response from daemon: network $d-none not found",
        ),
        same("rm prints the name", "docker network rm $d-net", "$d-net"),
        same("rm of several", "docker network rm $d-any $d-inside", "$d-any\n$d-inside"),
        same("rm of a network that is none", "refused docker network rm $d-net", "1 Error: No such network: $d-net")
        .newest("1 Error response from daemon: network $d-net not found"),
        same(
            "its subnet is free again",
            "docker network create -d $d --subnet 10.$n.1.0/24 --label tier=$d-old $d-net > /dev/null && echo made",
            "made",
        ),
        same(
            "prune removes what nobody uses",
            "box user --network $d-six; prune network --filter label=tier=$d-old | tail -n +2",
            "$d-net",
        ),
        same(
            "rm of a network in use",
            "refused docker network rm $d-six | sed -E 's/id [0-9a-f]+/id ID/; s/id:\"[0-9a-f]+\"/ID/'",
            "1 Error response from daemon: error while removing network: network $d-six id ID has active endpoints",
        )
        .newest("1 Error response from daemon: error while removing network: network $d-six has active endpoints (name:\"$d-user\" ID)"),
        same("rm when the container is gone", "docker rm -f $d-user > /dev/null; docker network rm $d-six", "$d-six"),
    ],
};
