//! Names: the embedded DNS and `/etc/hosts`.

use super::{Topic, same};

pub(super) const TOPIC: Topic = Topic {
    name: "names",
    checks: &[
        same(
            "two networks and three containers",
            "docker network create -d $d --subnet 10.$n.20.0/24 $d-one > /dev/null; docker network create -d $d --subnet 10.$n.21.0/24 $d-other > /dev/null; box a --network $d-one; web b --network $d-one --network-alias shop --network-alias till; web c --network $d-other; echo made",
            "made",
        ),
        same("resolv.conf", "on a cat /etc/resolv.conf | grep '^[^#]'", "nameserver 127.0.0.11\noptions ndots:0"),
        same("by container name", "from a $d-b", "b 10.$n.20.2"),
        same("by alias", "from a shop; from a till", "b 10.$n.20.2\nb 10.$n.20.2"),
        same("by the short id", "from a $(docker inspect -f '{{printf \"%.12s\" .Id}}' $d-b)", "b 10.$n.20.2"),
        same("by name and network", "from a $d-b.$d-one", "b 10.$n.20.2"),
        same("no name of another network", "on a nslookup $d-c > /dev/null; echo $?", "1"),
        same("no name that nobody has", "on a nslookup nobody > /dev/null; echo $?", "1"),
        same("outside names", "from a outside.example | name", "outside"),
        same("the name of an address", "on a nslookup 10.$n.20.3 2>/dev/null | sed -n 's/.*name = //p'", "$d-b.$d-one"),
        same(
            "--link",
            "docker run --rm --network $d-one --link $d-b:backend busybox wget -q -O- http://backend/cgi-bin/who",
            "b 10.$n.20.4",
        ),
        same(
            "one alias, two containers",
            "web b2 --network $d-one --network-alias shop; on a nslookup shop | grep -c '^Address: 10.'",
            "2",
        ),
        same("/etc/hosts has its own name", "on a tail -n 1 /etc/hosts | tr '\\t' ' '", "10.$n.20.2 a"),
        same(
            "--add-host",
            "docker run --rm --network $d-one --add-host far:198.51.100.1 busybox grep far /etc/hosts | tr '\\t' ' '",
            "198.51.100.1 far",
        ),
        same(
            "--dns is asked for other names",
            "docker run --rm --network $d-one --dns 192.0.2.2 busybox nslookup outside.example | grep -c 198.51.100.1",
            "1",
        ),
        same(
            "--dns-search, --dns-option",
            "docker run --rm --network $d-one --dns-search example --dns-option ndots:2 busybox cat /etc/resolv.conf | grep '^[^#]' | sort",
            "nameserver 127.0.0.11\noptions ndots:2\nsearch example",
        ),
        same(
            "after a rename",
            "docker rename $d-b $d-renamed; from a $d-renamed; on a nslookup $d-b > /dev/null; echo $?",
            "b 10.$n.20.2\n1",
        ),
        same(
            "not while it is stopped",
            "docker stop -t 0 $d-renamed > /dev/null; on a nslookup $d-renamed > /dev/null; echo $?",
            "1",
        ),
        same(
            "again when it is started",
            "docker start $d-renamed > /dev/null; ready renamed; from a $d-renamed",
            "b 10.$n.20.2",
        ),
        same(
            "a network connected live: its names",
            "docker network connect --alias visitor $d-other $d-a; from a $d-c; on c nslookup visitor | grep -c '^Address: 10.'",
            "c 10.$n.21.3\n1",
        ),
        same(
            "and no longer when disconnected",
            "docker network disconnect $d-other $d-a; on a nslookup $d-c > /dev/null; echo $?",
            "1",
        ),
        same(
            "an internal network resolves its own",
            "docker network create -d $d --internal --subnet 10.$n.22.0/24 $d-inside > /dev/null; web i --network $d-inside; docker run --rm --network $d-inside busybox wget -q -O- http://$d-i/cgi-bin/who",
            "i 10.$n.22.3",
        ),
    ],
};
