//! Who reaches whom: networks apart, the host, the outside.

use super::{Topic, differs, same};

pub(super) const TOPIC: Topic = Topic {
    name: "reach",
    checks: &[
        same(
            "two networks, one with IPv6",
            "docker network create -d $d --subnet 10.$n.30.0/24 --subnet fd$n:30::/64 --ipv6 $d-one > /dev/null; docker network create -d $d --subnet 10.$n.31.0/24 $d-other > /dev/null; web a --network $d-one; web b --network $d-one; web c --network $d-other; echo made",
            "made",
        ),
        same("a neighbour", "from a 10.$n.30.3", "b 10.$n.30.2"),
        same("a neighbour, IPv6", "from a [fd$n:30::3]", "b fd$n:30::2"),
        same("itself", "from a 10.$n.30.2", "a 10.$n.30.2"),
        same("no container of another network", "silence a 10.$n.31.2; silence c 10.$n.30.2", "nobody\nnobody"),
        same("nor by ping", "pings a 10.$n.31.2 1", "no"),
        same(
            "no container of the default network",
            "docker run -d --name $d-default httpd > /dev/null; silence a $(docker inspect -f '{{.NetworkSettings.IPAddress}}' $d-default)",
            "nobody",
        ),
        same(
            "but its published port is, at the host's addresses",
            "docker run -d --name $d-public --hostname public -p 10$n:80 httpd > /dev/null; for at in 192.0.2.1 172.17.0.1; do from a $at:10$n | name; done",
            "public\npublic",
        ),
        same("after connect it is reached", "docker network connect $d-other $d-a; from a 10.$n.31.2", "c 10.$n.31.3"),
        same("which lets nobody else through", "silence b 10.$n.31.2", "nobody"),
        same("nor after disconnect", "docker network disconnect $d-other $d-a; silence a 10.$n.31.2", "nobody"),
        same("outside, by NAT", "from a 198.51.100.1", "outside 192.0.2.1"),
        same("outside, by ping", "pings a 198.51.100.1", "yes"),
        differs(
            "outside, IPv6",
            "silence a '[2001:db8:1::1]'",
            "nobody",
            "outside 2001:db8::1",
            "the switch translates IPv6 as well, Docker's bridge only with --ip6tables",
        )
        .newest("outside 2001:db8::1"),
        same("a name outside", "from a outside.example", "outside 192.0.2.1"),
        same("an outside address without owner", "pings a 198.51.100.77 1", "no"),
        same("the host's own address", "from a 192.0.2.1:8000 | name", "host"),
        same(
            "a closed port of the host's is refused at once",
            "on a timeout 1 nc 192.0.2.1 9 < /dev/null 2>&1; echo $?",
            "nc: can't connect to remote host (192.0.2.1): Connection refused\n1",
        ),
        differs(
            "the host by the gateway's address",
            "from a 10.$n.30.1:8000",
            "host 10.$n.30.2",
            "nobody",
            "the gateway is the switch, not the host: the host is reached by its own address",
        ),
        differs(
            "from the host by the container's address",
            "from host 10.$n.30.2",
            "a 10.$n.30.1",
            "nobody",
            "the host has no leg in the network: publish a port, or nsenter",
        ),
        differs(
            "a container of the other network by name of the host",
            "pings a 10.$n.31.1",
            "yes",
            "no",
            "the gateway of a network answers its own stations only",
        ),
        same(
            "nobody outside reaches an address inside",
            "outside ip route replace 10.$n.0.0/16 via 192.0.2.1; silence outside 10.$n.30.2",
            "nobody",
        ),
        same(
            "--internal: neighbours",
            "docker network create -d $d --internal --subnet 10.$n.32.0/24 $d-inside > /dev/null; web i --network $d-inside; web j --network $d-inside; from i 10.$n.32.3",
            "j 10.$n.32.2",
        ),
        same("--internal: nobody outside", "silence i 198.51.100.1; pings i 198.51.100.1 1", "nobody\nno"),
        differs(
            "--internal: not the host",
            "silence i 192.0.2.1:8000",
            "host 10.$n.32.2",
            "nobody",
            "the gateway of an internal network leads nowhere",
        )
        .newest("nobody"),
        same("--internal and a second network", "docker network connect $d-one $d-i; from i 198.51.100.1", "outside 192.0.2.1"),
        same(
            "traceroute: the first hop is the gateway",
            "on a traceroute -n -q 1 -w 1 -m 1 198.51.100.1 | awk 'NR == 2 {print $2}'",
            "10.$n.30.1",
        ),
        same("the hop limit goes down by one", "on a ping -c 1 -W 2 198.51.100.1 | grep -o 'ttl=[0-9]*'", "ttl=63"),
        same(
            "a large file arrives",
            "on a sh -c 'head -c 20000000 /dev/zero > /www/zero'; on b wget -q -O- http://10.$n.30.2/zero | wc -c",
            "20000000",
        ),
        same(
            "broadcasts stay in the network",
            "on b arping -c 1 -w 1 -I eth0 10.$n.30.2 | grep -c reply; on c arping -c 1 -w 1 -I eth0 10.$n.30.2 | grep -c reply",
            "1\n0",
        ),
        same(
            "UDP to a neighbour",
            "on b sh -c 'timeout 2 netcat -u -l -p 5000 > /tmp/got 2> /dev/null' 2> /dev/null & sleep 0.5; on a sh -c 'echo hello | timeout 1 netcat -u 10.'$n'.30.3 5000' 2> /dev/null; wait; on b cat /tmp/got",
            "hello",
        ),
    ],
};
