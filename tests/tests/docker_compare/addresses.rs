//! What a container finds at its interfaces.

use super::{Topic, differs, same};

pub(super) const TOPIC: Topic = Topic {
    name: "addresses",
    checks: &[
        same(
            "two networks",
            "docker network create -d $d --ipv6 --subnet 10.$n.10.0/24 --gateway 10.$n.10.254 --ip-range 10.$n.10.128/28 --aux-address printer=10.$n.10.129 --subnet fd$n:10::/64 $d-one > /dev/null && docker network create -d $d --subnet 10.$n.11.0/24 $d-other > /dev/null; box a --network $d-one; echo made",
            "made",
        ),
        same("the first address of the range", "on a ip -4 -o addr show eth0 | awk '{print $4}'", "10.$n.10.128/24"),
        same(
            "a reserved address is passed over",
            "box b --network $d-one; on b ip -4 -o addr show eth0 | awk '{print $4}'",
            "10.$n.10.130/24",
        ),
        same(
            "without a range: the first after the gateway",
            "box c --network $d-other; on c ip -4 -o addr show eth0 | awk '{print $4}'",
            "10.$n.11.2/24",
        ),
        same(
            "IPv4 routes",
            "on a ip route",
            "default via 10.$n.10.254 dev eth0 \n10.$n.10.0/24 dev eth0 scope link  src 10.$n.10.128",
        ),
        same("IPv6 address", "on a ip -6 -o addr show eth0 scope global | awk '{print $4}'", "fd$n:10::2/64"),
        same("IPv6 default route", "on a ip -6 route show default", "default via fd$n:10::1 dev eth0  metric 1024"),
        same("interfaces", "on a ls /sys/class/net", "eth0\nlo"),
        same("MTU", "on a cat /sys/class/net/eth0/mtu", "1500"),
        same(
            "MTU by Docker's option",
            "docker network create -d $d --subnet 10.$n.12.0/24 -o com.docker.network.driver.mtu=1400 $d-mtu > /dev/null; docker run --rm --network $d-mtu busybox cat /sys/class/net/eth0/mtu",
            "1400",
        ),
        same("a MAC address made from the address", "printf '02:42:0a:%02x:0b:02' $n | grep -qx $(on c cat /sys/class/net/eth0/address) && echo yes || echo another", "yes")
        .newest_bridge("another"),
        differs(
            "the interface is up",
            "on a cat /sys/class/net/eth0/operstate",
            "up",
            "unknown",
            "so Linux says of every TAP: it has no carrier to tell of",
        ),
        same("the gateway answers pings", "pings a 10.$n.10.254", "yes"),
        same("and in IPv6", "pings a fd$n:10::1", "yes"),
        same("a neighbour answers pings", "pings a 10.$n.10.130", "yes"),
        same("and in IPv6", "pings a fd$n:10::3", "yes"),
        same("nobody answers for an address without owner", "pings a 10.$n.10.77 1", "no"),
        same(
            "--ip",
            "docker run --rm --network $d-one --ip 10.$n.10.50 busybox ip -4 -o addr show eth0 | awk '{print $4}'",
            "10.$n.10.50/24",
        ),
        same(
            "--ip6",
            "docker run --rm --network $d-one --ip6 fd$n:10::50 busybox ip -6 -o addr show eth0 scope global | awk '{print $4}'",
            "fd$n:10::50/64",
        ),
        same(
            "--ip in use",
            "refused docker run --rm --network $d-one --ip 10.$n.10.128 busybox true",
            "125 docker: Error response from daemon: Address already in use",
        ),
        same(
            "--ip of another subnet",
            "refused docker run --rm --network $d-one --ip 10.9.9.9 busybox true",
            "125 docker: Error response from daemon: Invalid address 10.9.9.9: It does not belong to any of this network's subnets",
        )
        .newest("125 docker: Error response from daemon: invalid config for network $d-one: invalid endpoint settings:"),
        same(
            "--ip of the gateway",
            "refused docker run --rm --network $d-one --ip 10.$n.10.254 busybox true",
            "125 docker: Error response from daemon: Address already in use",
        ),
        same(
            "--ip where nobody chose the subnet",
            "docker network create -d $d $d-any > /dev/null; refused docker run --rm --network $d-any --ip 172.29.0.9 busybox true",
            "125 docker: Error response from daemon: user specified IP address is supported only when connecting to networks with user configured subnets",
        )
        .newest("125 docker: Error response from daemon: invalid config for network $d-any: invalid endpoint settings:"),
        same(
            "a range that is used up",
            "docker network create -d $d --subnet 10.$n.13.0/30 $d-small > /dev/null; box small --network $d-small; refused docker run --rm --network $d-small busybox true",
            "125 docker: Error response from daemon: no available IPv4 addresses on this network's address pools: $d-small (ID)",
        ),
        same(
            "--mac-address",
            "docker run --rm --network $d-one --mac-address 02:12:34:56:78:9a busybox cat /sys/class/net/eth0/address",
            "02:12:34:56:78:9a",
        ),
        same(
            "--link-local-ip",
            "docker run --rm --network $d-one --link-local-ip 169.254.7.7 busybox ip -4 -o addr show eth0 | awk '{print $4}'",
            "10.$n.10.131/24\n169.254.7.7/16",
        ),
        same(
            "inspect tells the same addresses",
            "docker inspect -f '{{with (index .NetworkSettings.Networks \"'$d'-one\")}}{{.IPAddress}}/{{.IPPrefixLen}} {{.Gateway}} {{.GlobalIPv6Address}} {{.IPv6Gateway}}{{end}}' $d-a",
            "10.$n.10.128/24 10.$n.10.254 fd$n:10::2 fd$n:10::1",
        ),
        same(
            "inspect and the container agree on the MAC address",
            "[ $(docker inspect -f '{{range .NetworkSettings.Networks}}{{.MacAddress}}{{end}}' $d-a) = $(on a cat /sys/class/net/eth0/address) ] && echo yes",
            "yes",
        ),
        same(
            "the network lists its containers",
            "docker network inspect -f '{{range .Containers}}{{.Name}} {{.IPv4Address}} {{end}}' $d-one | tr ' ' '\\n' | sort | xargs",
            "10.$n.10.128/24 10.$n.10.130/24 $d-a $d-b",
        ),
        differs(
            "--internal: no way out",
            "docker network create -d $d --internal --subnet 10.$n.14.0/24 $d-inside > /dev/null; docker run --rm --network $d-inside busybox ip route",
            "default via 10.$n.14.1 dev eth0 \n10.$n.14.0/24 dev eth0 scope link  src 10.$n.14.2",
            "10.$n.14.0/24 dev eth0 scope link  src 10.$n.14.2",
            "a route that leads nowhere only makes programs wait",
        )
        .newest("10.$n.14.0/24 dev eth0 scope link  src 10.$n.14.2"),
        same("--network none", "docker run --rm --network none busybox ls /sys/class/net", "lo"),
        same("--network host", "docker run --rm --network host busybox cat /proc/net/if_inet6 | grep -c wan", "2"),
        same(
            "--network container:",
            "docker run --rm --network container:$d-a busybox ip -4 -o addr show eth0 | awk '{print $4}'",
            "10.$n.10.128/24",
        ),
        same(
            "--sysctl for its interface",
            "docker run --rm --network $d-one --sysctl net.ipv4.ip_default_ttl=33 busybox cat /proc/sys/net/ipv4/ip_default_ttl",
            "33",
        ),
        same(
            "connect: a second interface",
            "docker network connect $d-other $d-a; on a ip -4 -o addr show eth1 | awk '{print $4}'",
            "10.$n.11.3/24",
        ),
        same("the first stays the default", "on a ip route | grep default", "default via 10.$n.10.254 dev eth0"),
        same("both reach their neighbours", "pings a 10.$n.10.130; pings a 10.$n.11.2", "yes\nyes"),
        same(
            "connect twice",
            "refused docker network connect $d-other $d-a",
            "1 Error response from daemon: endpoint with name $d-a already exists in network $d-other",
        ),
        same(
            "disconnect of the first: the other becomes the default",
            "docker network disconnect $d-one $d-a; on a ip route | grep default",
            "default via 10.$n.11.1 dev eth1",
        ),
        same("its interface is gone", "on a ls /sys/class/net", "eth1\nlo"),
        same(
            "its address is free again",
            "docker run --rm --network $d-one --ip 10.$n.10.128 busybox true && echo free",
            "free",
        ),
        same(
            "disconnect twice",
            "refused docker network disconnect $d-one $d-a",
            "1 Error response from daemon: container ID is not connected to network $d-one",
        ),
        same(
            "connect with an address",
            "docker network connect --ip 10.$n.10.60 $d-one $d-a; on a ip -4 -o addr show | awk '/10.'$n'.10/ {print $4}'",
            "10.$n.10.60/24",
        ),
        same(
            "connect with an address in use",
            "docker network disconnect $d-other $d-c; refused docker network connect --ip 10.$n.10.60 $d-one $d-c",
            "1 Error response from daemon: Address already in use",
        ),
        same("nothing but lo after the last disconnect", "on c ls /sys/class/net", "lo"),
        same(
            "disconnect by force of a stopped one",
            "docker stop -t 0 $d-b > /dev/null; docker network disconnect -f $d-one $d-b; docker inspect -f '{{len .NetworkSettings.Networks}}' $d-b",
            "0",
        ),
    ],
};
