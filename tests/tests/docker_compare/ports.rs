//! Published ports.

use super::{Topic, differs, same};

/// Why refusals differ.
const REFUSED: &str = "Docker's words are about its proxy; ours name the port and what to do";

pub(super) const TOPIC: Topic = Topic {
    name: "ports",
    checks: &[
        same(
            "a container that publishes",
            "docker network create -d $d --subnet 10.$n.40.0/24 $d-one > /dev/null; docker network create -d $d --subnet 10.$n.41.0/24 $d-other > /dev/null; web a --network $d-one -p ${n}80:80; box b --network $d-one; box c --network $d-other; echo made",
            "made",
        ),
        same("from the host's localhost", "from host 127.0.0.1:${n}80 | name", "a"),
        same("from localhost in IPv6", "from host '[::1]':${n}80 | name", "a"),
        same("from the host's address", "from host 192.0.2.1:${n}80 | name", "a"),
        same("from outside", "from outside 192.0.2.1:${n}80 | name", "a"),
        same("from outside: the asker's address is kept", "from outside 192.0.2.1:${n}80", "a 192.0.2.2"),
        same("from outside in IPv6", "from outside '[2001:db8::1]':${n}80 | name", "a"),
        same("from a neighbour by the host's address (hairpin)", "from b 192.0.2.1:${n}80 | name", "a"),
        same("from itself (hairpin)", "from a 192.0.2.1:${n}80 | name", "a"),
        same("from another network by the host's address", "from c 192.0.2.1:${n}80 | name", "a"),
        differs(
            "docker port",
            "docker port $d-a 2> /dev/null | sed 's/\\[::\\]/::/'",
            "80/tcp -> 0.0.0.0:8080\n80/tcp -> :::8080",
            "",
            "Docker shows only what its own drivers report: see vsctl list-forwards",
        ),
        same(
            "the wish is shown by inspect",
            "docker inspect -f '{{json .HostConfig.PortBindings}}' $d-a",
            r#"{"80/tcp":[{"HostIp":"","HostPort":"$n80"}]}"#,
        ),
        same(
            "on one address of the host",
            "web ip --network $d-one -p 127.0.0.1:${n}91:80; from host 127.0.0.1:${n}91 | name; silence outside 192.0.2.1:${n}91",
            "ip\nnobody",
        ),
        differs(
            "on an address that the host has not",
            "refused docker run --rm --network $d-one -p 203.0.113.9:${n}82:80 busybox true | sed 's/.*(ID): //'",
            "Error starting userland proxy: listen tcp4 203.0.113.9:$n82: bind: cannot assign requested address",
            "remote: cannot forward TCP port $n82: the host has no address 203.0.113.9: `ip addr` lists those that it has",
            REFUSED,
        )
        .newest_bridge("failed to bind host port for 203.0.113.9:$n82:10.$n.40.5:80/tcp: cannot assign requested address"),
        same(
            "one port, several addresses",
            "web two --network $d-one -p 127.0.0.1:${n}83:80 -p 192.0.2.1:${n}83:80; from host 127.0.0.1:${n}83 | name; from outside 192.0.2.1:${n}83 | name",
            "two\ntwo",
        ),
        same(
            "a range to a range",
            "web range --network $d-one -p ${n}10-${n}12:79-81; from outside 192.0.2.1:${n}11 | name; silence outside 192.0.2.1:${n}10",
            "range\nnobody",
        ),
        same(
            "a range for one port: the first that is free",
            "web pick --network $d-one -p ${n}80-${n}82:80; from outside 192.0.2.1:${n}81 | name",
            "pick",
        ),
        same(
            "two ports",
            "web pair --network $d-one -p ${n}84:80 -p ${n}85:80; from outside 192.0.2.1:${n}84 | name; from outside 192.0.2.1:${n}85 | name",
            "pair\npair",
        ),
        same(
            "UDP",
            "box udp --network $d-one -p ${n}53:53/udp; on udp sh -c 'timeout 4 netcat -u -l -p 53 > /tmp/got 2> /dev/null' 2> /dev/null & sleep 1.5; echo hello | outside timeout 1 nc -u -w 1 192.0.2.1 ${n}53; wait; on udp cat /tmp/got",
            "hello",
        ),
        same(
            "UDP and TCP on one port",
            "web both --network $d-one -p ${n}86:80/tcp -p ${n}86:80/udp; from outside 192.0.2.1:${n}86 | name",
            "both",
        ),
        differs(
            "a port in use by a container",
            "refused docker run --rm --network $d-one -p ${n}80:80 busybox true | sed 's/.*(ID): //; s/for :::/for 0.0.0.0:/'",
            "Bind for 0.0.0.0:$n80 failed: port is already allocated",
            "remote: tcp port $n80 is in use: publish another port, or end what uses it (`vsctl list-forwards` and `ss -lnp` name it)",
            REFUSED,
        ),
        same("and how it ends", "docker run --rm --network $d-one -p ${n}80:80 busybox true 2> /dev/null; echo $?", "125"),
        differs(
            "a port in use by a program of the host's",
            "refused docker run --rm --network $d-one -p 8000:80 busybox true | sed 's/.*(ID): //'",
            "Error starting userland proxy: listen tcp4 0.0.0.0:8000: bind: address already in use",
            "remote: cannot forward TCP port 8000 of the host: 0.0.0.0:8000 is in use by another program: choose another port, or stop that program (`ss -lnp` names it)",
            REFUSED,
        )
        .newest_bridge("failed to bind host port for 0.0.0.0:8000:10.$n.40.11:80/tcp: address already in use"),
        differs(
            "a range that is in use",
            "refused docker run --rm --network $d-one -p ${n}80-${n}81:80 busybox true | sed 's/.*(ID): //'",
            "all ports are allocated",
            "remote: all tcp ports from $n80 to $n81 are in use: publish another port, or end what uses it (`vsctl list-forwards` and `ss -lnp` name it)",
            REFUSED,
        ),
        same(
            "the container is created and not started",
            "docker run --name $d-failed --network $d-one -p ${n}80:80 busybox true 2> /dev/null; docker inspect -f '{{.State.Status}}' $d-failed",
            "created",
        ),
        same("it starts when the port is free", "docker rm -f $d-a > /dev/null; docker start $d-failed", "$d-failed"),
        same(
            "a port is free when its container has ended",
            "docker wait $d-failed; web a --network $d-one -p ${n}80:80; from outside 192.0.2.1:${n}80 | name",
            "0\na",
        ),
        same("nobody while it is stopped", "docker stop -t 0 $d-a > /dev/null; silence outside 192.0.2.1:${n}80", "nobody"),
        same(
            "and again when it is started",
            "docker start $d-a > /dev/null; ready a; from outside 192.0.2.1:${n}80 | name",
            "a",
        ),
        same("and after a restart", "docker restart -t 0 $d-a > /dev/null; ready a; from outside 192.0.2.1:${n}80 | name", "a"),
        same("nobody after disconnect", "docker network disconnect $d-one $d-a; silence outside 192.0.2.1:${n}80", "nobody"),
        same(
            "by its new network after connect",
            "docker network connect $d-other $d-a; from outside 192.0.2.1:${n}80 | name",
            "a",
        ),
        same(
            "a container on two networks publishes once",
            "docker network connect $d-one $d-a; from outside 192.0.2.1:${n}80 | name",
            "a",
        ),
        same(
            "--internal publishes nothing",
            "docker network create -d $d --internal --subnet 10.$n.42.0/24 $d-inside > /dev/null; web i --network $d-inside -p ${n}87:80; silence outside 192.0.2.1:${n}87; silence host 127.0.0.1:${n}87",
            "nobody\nnobody",
        ),
        same(
            "a port that nobody listens at inside",
            "box quiet --network $d-one -p ${n}88:80; silence outside 192.0.2.1:${n}88",
            "nobody",
        ),
        differs(
            "a port that Docker picks: docker port knows it",
            "web any --network $d-one -p 80; docker port $d-any 80 2> /dev/null | wc -l",
            "2",
            "0",
            "Docker shows only what its own drivers report: vsctl list-forwards does",
        ),
        same("rm -f ends it", "docker rm -f $d-pair > /dev/null; silence outside 192.0.2.1:${n}84", "nobody"),
    ],
};
