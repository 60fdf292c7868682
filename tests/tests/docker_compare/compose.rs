//! A file of docker-compose: services on two networks, with names, addresses and ports of their own.

use super::{Topic, differs, same};

/// Written by the first check. `web` is on `front`, `db` on the internal `back`, `api` on both.
const UP: &str = r#"mkdir -p /run/$d-shop; cat > /run/$d-shop/docker-compose.yml <<END
services:
  web:
    image: httpd
    hostname: web
    networks: { front: { aliases: [www, shop], ipv4_address: 10.$n.60.10 } }
    ports: ["89$n:80"]
  api:
    image: httpd
    hostname: api
    networks:
      front: { aliases: [gate] }
      back: { aliases: [backend], ipv4_address: 10.$n.61.10 }
    ports: [{ target: 80, published: 88$n, protocol: tcp, mode: host }]
  db:
    image: httpd
    networks: { back: { aliases: [store] } }
networks:
  front:
    driver: $d
    driver_opts: { com.docker.network.driver.mtu: "1400" }
    ipam: { config: [{ subnet: 10.$n.60.0/24, gateway: 10.$n.60.1, ip_range: 10.$n.60.128/25 }] }
  back:
    driver: $d
    internal: true
    ipam: { config: [{ subnet: 10.$n.61.0/24 }] }
END
compose up -d > /dev/null; running | wc -l
for name in shop_web_1 shop_api_1 shop_db_1; do ready $name; done"#;

pub(super) const TOPIC: Topic = Topic {
    name: "compose",
    checks: &[
        same("up -d: two networks and three services", UP, "3"),
        same(
            "ps",
            "compose ps --services --filter status=running | sort | xargs; compose ps | grep -c ' Up '",
            "api db web\n3",
        ),
        differs(
            "its ports",
            "compose port web 80 | grep '^0.0.0.0'; compose ps web | grep -o '0.0.0.0:[^, ]*->80'",
            "0.0.0.0:89$n\n0.0.0.0:89$n->80",
            "",
            "as `docker port`: Docker shows its own drivers' ports only, so ask vsctl list-forwards",
        ),
        same(
            "again: nothing is to be done",
            "before=$(running); compose up -d > /dev/null; [ \"$(running)\" = \"$before\" ] && echo the same",
            "the same",
        ),
        same(
            "addresses that were asked for",
            "for at in web:front api:back; do docker inspect -f \"{{(index .NetworkSettings.Networks \\\"$d-shop_${at#*:}\\\").IPAddress}}\" $d-shop_${at%:*}_1; done",
            "10.$n.60.10\n10.$n.61.10",
        ),
        same(
            "and one of ip_range",
            "docker inspect -f \"{{(index .NetworkSettings.Networks \\\"$d-shop_front\\\").IPAddress}}\" $d-shop_api_1",
            "10.$n.60.128",
        ),
        same("driver_opts: the MTU", "on shop_web_1 cat /sys/class/net/eth0/mtu", "1400"),
        same("the gateway", "on shop_web_1 ip route | head -n 1 | xargs", "default via 10.$n.60.1 dev eth0"),
        same(
            "on both: the way out is by front",
            "on shop_api_1 ip route | grep -o 'default via [0-9.]*'",
            "default via 10.$n.60.1",
        ),
        same(
            "services by name",
            "from shop_web_1 api | name; from shop_api_1 web | name; from shop_db_1 api | name",
            "api\nweb\napi",
        ),
        same(
            "by alias",
            "for at in www shop; do from shop_api_1 $at | name; done; from shop_web_1 gate | name; from shop_db_1 backend | name",
            "web\nweb\napi\napi",
        ),
        same(
            "a name leads to the network that is shared",
            "from shop_db_1 api; from shop_web_1 api",
            "api 10.$n.61.2\napi 10.$n.60.10",
        ),
        same(
            "no name of a network that is not shared",
            "for at in web:db web:store web:backend db:web db:www db:gate; do on shop_${at%:*}_1 nslookup ${at#*:} > /dev/null || echo -n 'no '; done",
            "no no no no no no",
        ),
        same(
            "and no way to its addresses",
            "silence shop_web_1 10.$n.61.10; silence shop_web_1 10.$n.61.2; silence shop_db_1 10.$n.60.10; silence shop_db_1 198.51.100.1",
            "nobody\nnobody\nnobody\nnobody",
        ),
        same(
            "front has a way out",
            "from shop_web_1 198.51.100.1; from shop_api_1 198.51.100.1",
            "outside 192.0.2.1\noutside 192.0.2.1",
        ),
        same("ports, short", "from outside 192.0.2.1:89$n; from host 127.0.0.1:89$n | name", "web 192.0.2.2\nweb"),
        same(
            "ports, long, of the one on both",
            "from outside 192.0.2.1:88$n; from host 127.0.0.1:88$n | name",
            "api 192.0.2.2\napi",
        ),
        same(
            "restart of one",
            "compose restart -t 0 web > /dev/null; ready shop_web_1; from shop_api_1 www; from outside 192.0.2.1:89$n",
            "web 10.$n.60.128\nweb 192.0.2.2",
        ),
        same(
            "stop, start: names go and come",
            "compose stop -t 0 api > /dev/null; on shop_db_1 nslookup backend > /dev/null || echo no; compose start api > /dev/null; ready shop_api_1; from shop_db_1 backend; from outside 192.0.2.1:88$n",
            "no\napi 10.$n.61.2\napi 192.0.2.2",
        ),
        same(
            "--scale: three of one name",
            "compose up -d --scale db=3 > /dev/null; on shop_api_1 nslookup store | grep -c '^Address: 10\\.'; for i in 1 2 3; do ready shop_db_$i; pings shop_api_1 $d-shop_db_$i; done",
            "3\nyes\nyes\nyes",
        ),
        same(
            "and one again",
            "compose up -d -t 0 --scale db=1 > /dev/null; on shop_api_1 nslookup store | grep -c '^Address: 10\\.'",
            "1",
        ),
        same(
            "made anew: it has its address and port again",
            "compose up -d -t 0 --force-recreate web > /dev/null; ready shop_web_1; from shop_api_1 shop; from outside 192.0.2.1:89$n",
            "web 10.$n.60.128\nweb 192.0.2.2",
        ),
        same(
            "changed: one is made anew, the others stay",
            "sed -i 's/aliases: .store./aliases: [store, depot]/' /run/$d-shop/docker-compose.yml; running > /run/$d-before; compose up -d -t 0 > /dev/null; running | comm -13 /run/$d-before - | wc -l; ready shop_db_1; on shop_api_1 nslookup depot | grep -c '^Address: 10\\.'",
            "1\n1",
        ),
        same(
            "run: one more for a moment",
            "compose run --rm db wget -q -O- http://backend/cgi-bin/who 2> /dev/null | grep -c '^api 10\\.'",
            "1",
        ),
        same(
            "down",
            "compose down -t 0 > /dev/null; docker ps -aq --filter name=^$d-shop | wc -l; docker network ls -q --filter name=^$d-shop | wc -l; from outside 192.0.2.1:89$n",
            "0\n0\nnobody",
        ),
        same(
            "and up again",
            "compose up -d > /dev/null; running | wc -l; for name in web api db; do ready shop_${name}_1; done; from shop_web_1 gate; compose down -t 0 > /dev/null",
            "3\napi 10.$n.60.10",
        ),
    ],
};
