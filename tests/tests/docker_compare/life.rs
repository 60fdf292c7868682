//! Containers started, stopped, paused, renamed and removed; how commands end.

use super::{Topic, same};

pub(super) const TOPIC: Topic = Topic {
    name: "life",
    checks: &[
        same(
            "two containers",
            "docker network create -d $d --subnet 10.$n.50.0/24 $d-one > /dev/null; web a --network $d-one; web b --network $d-one; echo made",
            "made",
        ),
        same(
            "stop and start: the address stays",
            "docker stop -t 0 $d-b > /dev/null; docker start $d-b > /dev/null; ready b; from a 10.$n.50.3",
            "b 10.$n.50.2",
        ),
        same("restart", "docker restart -t 0 $d-b > /dev/null; ready b; from a 10.$n.50.3", "b 10.$n.50.2"),
        same(
            "its neighbours see the same MAC address",
            "on a sh -c 'ping -c 1 10.'$n'.50.3 > /dev/null; grep -c $(ip neigh show 10.'$n'.50.3 | cut -d\" \" -f5) /proc/net/arp'",
            "1",
        ),
        same("paused: nobody answers", "docker pause $d-b > /dev/null; silence a 10.$n.50.3", "nobody"),
        same("a paused one still answers pings", "pings a 10.$n.50.3", "yes"),
        same("unpaused", "docker unpause $d-b > /dev/null; from a 10.$n.50.3", "b 10.$n.50.2"),
        same("renamed: nothing is interrupted", "docker rename $d-b $d-bee; from a 10.$n.50.3", "b 10.$n.50.2"),
        same("killed", "docker kill $d-bee > /dev/null; docker wait $d-bee; silence a 10.$n.50.3", "137\nnobody"),
        same(
            "rm of a running one",
            "refused docker rm $d-a | sed 's/ID.*//'",
            "1 Error response from daemon: You cannot remove a running container",
        )
        .newest("1 Error response from daemon: cannot remove container \"$d-a\": container is running: stop the container before removing or force remove"),
        same("rm -f", "docker rm -f $d-bee; docker ps -aq --filter name=$d-bee | wc -l", "$d-bee\n0"),
        same(
            "its address is given again",
            "docker run --rm --network $d-one busybox ip -4 -o addr show eth0 | awk '{print $4}'",
            "10.$n.50.3/24",
        ),
        same("the exit code of a command", "docker run --rm --network $d-one busybox sh -c 'exit 7'; echo $?", "7"),
        same(
            "a command that does not exist",
            "docker run --rm --network $d-one busybox nothing > /dev/null 2>&1; echo $?",
            "127",
        ),
        same("and its address is free", "docker run --rm --network $d-one --ip 10.$n.50.3 busybox true; echo $?", "0"),
        same(
            "--restart always",
            "docker run -d --name $d-again --restart always --network $d-one busybox sleep 0.2 > /dev/null; for i in $(seq 50); do [ $(docker inspect -f '{{.RestartCount}}' $d-again) -ge 2 ] && echo again && break; sleep 0.1; done; docker rm -f $d-again > /dev/null",
            "again",
        ),
        same(
            "created, connected, then started",
            "docker create --name $d-late --network $d-one busybox ls /sys/class/net > /dev/null; docker network create -d $d --subnet 10.$n.51.0/24 $d-two > /dev/null; docker network connect $d-two $d-late; docker start -a $d-late",
            "eth0\neth1\nlo",
        ),
        same(
            "ten at once",
            "for i in $(seq 10); do docker run -d --name $d-m$i --network $d-one busybox sleep 1000 > /dev/null & done; wait; for i in $(seq 10); do pings a $d-m$i; done | sort | uniq -c | xargs",
            "10 yes",
        ),
        same(
            "ten addresses",
            "docker network inspect -f '{{range .Containers}}{{.IPv4Address}}\n{{end}}' $d-one | grep . | sort -u | wc -l",
            "11",
        ),
        same("and removed at once", "docker rm -f $(docker ps -q --filter name=$d-m) | wc -l", "10"),
        same(
            "prune of stopped ones",
            "docker create --name $d-p --network $d-one --label prune=$d busybox true > /dev/null; prune container --filter label=prune=$d | grep -c '^[0-9a-f]\\{64\\}'",
            "1",
        ),
        same(
            "all gone: the network can be removed",
            "docker rm -f $d-a $d-late > /dev/null; docker network rm $d-one $d-two",
            "$d-one\n$d-two",
        ),
    ],
};
