package main

import (
	"math/rand/v2"
	"strings"
)

type input struct {
	shape string
	body  []byte
}

const whole = `{"Volumes": [{"ID": "v\u00e9\ud83d\ude00\n", "Name": "größe", "RequestedCapabilities": [{"AccessMode": ` +
	`"single-node-writer", "AttachmentMode": "file-system"}], "Parameters": {"a": "b", "c": null}, "Secrets": null, ` +
	`"RequestedCapacityMin": 1048576, "MountOptions": {"FSType": "ext4", "MountFlags": ["ro", null]}, "Schedulable": true, ` +
	`"ResourceExhausted": "0001-01-01T00:00:00Z", "CreateIndex": 7, "Topologies": [null, {"Segments": {"rack": "r1"}}], ` +
	`"RequestedTopologies": {"Required": [{"Segments": {}}]}, "Wibble": [{"x": [1.5e3, -0, false]}]}], "Region": "global"} x`

const oddities = `{"Small": -2147483648, "When": "2026-11-23T15:46:54.936417403Z", "Inner": {"fstype": "x"}, ` +
	`"Numbers": [1, 2, 3], "Lists": [["a"], [], null], "Flags": {"t": true}}`

// scalars are written as values of fields of every kind.
var scalars = []string{
	`null`, `true`, `false`, `0`, `-0`, `1`, `-1`, `5.0`, `1.5`, `1e3`, `1E+2`, `-1e-2`, `2147483647`, `2147483648`, `-2147483648`,
	`-2147483649`, `9223372036854775807`, `9223372036854775808`, `-9223372036854775808`, `-9223372036854775809`,
	`18446744073709551615`, `18446744073709551616`, `123456789012345678901234567890`, `""`, `"x"`, `"5"`, `[]`, `{}`, `[null]`, `[1]`,
	`["x"]`, `[[]]`, `[{}]`, `{"a": "b"}`, `{"a": 1}`, `{"a": null}`, `{"a": true}`, `{"a": []}`, `{"a": {}}`, `[true, 5]`, `{"a": 1, "b": {}}`,
}

// broken is put where a value belongs.
var broken = []string{
	``, `-`, `-a`, `+1`, `.5`, `01`, `00`, `1.`, `1.e`, `1.5.2`, `1e`, `1e+`, `1e+x`, `1ex`, `1e5.`, `0x10`, `-01`, `- 1`, `t`, `tr`, `trub`,
	`truee`, `fals`, `falsy`, `nul`, `nulL`, `NaN`, `Infinity`, `-Infinity`, `undefined`, `'a'`, `"`, `"a`, `"\`, `"\x"`, `"\u`, `"\u12`,
	`"\u12G4"`, `"\u00e"`, `"\'"`, "\"a\nb\"", "\"a\tb\"", "\"\x00\"", "\"\x1f\"", "\"\x7f\"", `[`, `[1`, `[1,`, `[1,]`, `[,1]`, `[1 2]`, `[1}`, `[]]`,
	`{`, `{"a"`, `{"a":`, `{"a":1`, `{"a":1,`, `{"a":1,}`, `{,}`, `{"a" 1}`, `{"a"::1}`, `{"a":1]`, `{a:1}`, `{1:2}`, `{"a":1 "b":2}`, `{}}`, `]`,
	`}`, `:`, `,`, `#`, `\`, `/* */ 1`, "\x00", "\x07", "\x0b", "\x0c", "\x1b", "\x7f", "\x80", "\x9f", "\xa0", "\xad", "\xff", "é", "\u2028",
	`*`, `"\ud800`, `"\ud800\u`, `"a" "b"`, `"a" 1`, `1 "a"`, `nullnull`, `true false`, `[1,,2]`, `"\"`,
}

var strs = []string{
	`\ud800`, `\udc00`, `\ud800x`, `\ud800\ud800`, `\ud800\ud800\udc00`, `\udc00\ud800`, `\uD83D\uDE00`, `\ud83d\u0041`, `\ud83d\n`, `\u0000`,
	`\u001f`, `\u2028`, `\ufffd`, `\uFFFF`, `\b\f\n\r\t\/\\\"`, "\xff", "a\xffb", "\xc3", "\xc3\x28", "\xe2\x82", "\xe2\x82x", "\xe2\x28\xa1",
	"\xf0\x9f\x98", "\xf0\x9f\x98\x80", "\xf0\x28\x8c\x28", "\xf8\x88\x80\x80\x80", "\xed\xa0\x80", "\xed\xa0\x80\xed\xb0\x80", "\xc0\xaf",
	"\xe0\x80\xaf", "\xf4\x90\x80\x80", "\xf5\x80", "\x80\x80", "\xef\xbb\xbf", "\xef\xbf\xbf", "\x7f", "é", "\u2028\u2029", "😀", `\\u0041`,
	`\u00` + "\xff", `<>&`, "\xe2\x82\\n", "\xf1\x80\x80\\ud800",
}

var keys = []string{
	`Volumes`, `volumes`, `VOLUMES`, `vOlUmEs`, `volume`, `Volumes `, `Volume\u0073`, "volume\u017f", `VOLUME\u017f`, `Volumes\u0000`, ``, `_`,
	"Vo\xffumes", `PolicyOverride`, `policyoverride`, `policy_override`, `writerequest`, `WriteRequest`, `region`, "Re\u0261ion",
}

var times = []string{
	``, `yesterday`, `2026`, `2026-`, `2026-1-02T03:04:05Z`, `2026-01-02`, `2026-01-02 03:04:05Z`, `2026-01-02t03:04:05Z`, `2026-01-02T03:04:05`,
	`2026-01-02T03:04:05z`, `2026-01-02T03:04:05Z`, `2026-01-02T3:04:05Z`, `2026-01-02T03:4:05Z`, `2026-01-02T03:04:5Z`, `2026-01-02T24:00:00Z`,
	`2026-01-02T99:00:00Z`, `2026-01-02T03:60:00Z`, `2026-01-02T03:04:60Z`, `2026-00-02T03:04:05Z`, `2026-13-02T03:04:05Z`,
	`2026-01-00T03:04:05Z`, `2026-01-32T03:04:05Z`, `2026-02-29T03:04:05Z`, `2024-02-29T03:04:05Z`, `2100-02-29T03:04:05Z`,
	`2000-02-29T03:04:05Z`, `2026-04-31T03:04:05Z`, `0000-01-01T00:00:00Z`, `9999-12-31T23:59:59.999999999Z`, `12026-01-02T03:04:05Z`,
	`-026-01-02T03:04:05Z`, `+026-01-02T03:04:05Z`, `2026-01-02T03:04:05.Z`, `2026-01-02T03:04:05.1Z`, `2026-01-02T03:04:05,1Z`,
	`2026-01-02T03:04:05.1234567890123Z`, `2026-01-02T03:04:05.1x`, `2026-01-02T03:04:05+01:00`, `2026-01-02T03:04:05-23:59`,
	`2026-01-02T03:04:05+24:00`, `2026-01-02T03:04:05+24:01`, `2026-01-02T03:04:05+25:00`, `2026-01-02T03:04:05+00:60`,
	`2026-01-02T03:04:05+00:61`, `2026-01-02T03:04:05+01`, `2026-01-02T03:04:05+0100`, `2026-01-02T03:04:05+01:0`, `2026-01-02T03:04:05+1:00x`,
	`2026-01-02T03:04:05+aa:00`, `2026-01-02T03:04:05+01:aa`, `2026-01-02T03:04:05+99:aa`, `2026-01-02T03:04:05x01:00`,
	`2026-01-02T03:04:05x99:00`, `2026-01-02T03:04:05Z `, `2026-01-02T03:04:05Zx`, `2026-01-02T03:04:05+01:00x`, ` 2026-01-02T03:04:05Z`,
	`2026-01-02\u005403:04:05Z`, `\"`, `größe`, "\xff", `2026-01-02T03:04:05Z\n`, "2026-01-02T03:04:05Z\x7f", `2026-01-02T03:04:05\\`, `2x26-01-02`,
	`2026-0x-02`, `2026-01-02Tx`, `2026-01-02T1`, `2026-01-02T1:`, `20260102T030405Z`, `2026-01-02T03:04:05.000000001+00:00`,
}

var durations = []string{
	``, `0`, `-0`, `+0`, `-`, `+`, `1`, `1s`, `-1.5s`, `+2m`, `1h30m`, `1h 30m`, `1.s`, `.5s`, `.s`, `.`, `1..5s`, `1s1`, `1x`, `1sx`, `1µs`, `1μs`, `1us`,
	`1ns`, `0.5ns`, `1.9999999999ns`, `9223372036854775807ns`, `9223372036854775808ns`, `-9223372036854775808ns`, `-9223372036854775809ns`,
	`2562047h47m16.854775807s`, `2562047h47m16.854775808s`, `-2562047h47m16.854775808s`, `2562048h`, `99999999999999999999s`, `00000000000000000000001s`,
	`0.99999999999999999999999999h`, `0.123456789123456789s`, `9223372036854775808h`, `9223372036854775807x`, `18446744073709551616x`,
	`99999999999999999999`, `1d`, `1 s`, ` 1s`, `1s `, `1é`, `1\"`, `1\u0000s`, `s`, `--1s`, `1e3s`, `1m1m`, `1ſ`, `9223372036.854775808s`, `0.3333333333333333333h`,
	`9223372036854775807.9ns`, `3.9223372036854775807h`, `1.92233720368547758079h`,
}

var bodies = []string{
	"", " ", "\n\t\r ", "\x0b", "\ufeff{}", `{}`, ` {} `, `null`, `nullx`, `5`, `5x`, `-`, `"x"`, `true`, `[]`, `[[]]`, `{} {}`, `{}garbage`, `nul`, whole,
	`{"Volumes":[{"ID":"a","Name":"n"}],"Volumes":[{"Name":"b"}]}`,
	`{"Volumes":[{"ID":"a"},{"ID":"b","Name":"x"}],"Volumes":[{"ID":"c"}],"Volumes":[{},{}]}`,
	`{"Volumes":[{"ID":"a"},{"ID":"b","Name":"x"}],"Volumes":[],"Volumes":[{},{}]}`,
	`{"Volumes":[{"ID":"a"},{"ID":"b","Name":"x"}],"Volumes":null,"Volumes":[{},{}]}`,
	`{"Volumes":[{"ID":"a"},{"ID":"b"}],"volumes":[{"name":"c"}]}`,
	`{"Volumes":[{"Parameters":{"a":"1","b":"2"},"Parameters":{"a":"3","c":null}}]}`,
	`{"Volumes":[{"Parameters":{"a":"1"},"Parameters":null,"Parameters":{}}]}`,
	`{"Volumes":[{"Parameters":{"a":"1","a":null}}]}`,
	`{"Volumes":[{"MountOptions":{"FSType":"x"},"MountOptions":{"MountFlags":["a","b"]},"MountOptions":{"MountFlags":[null]}}]}`,
	`{"Volumes":[{"MountOptions":{"FSType":"x"},"MountOptions":null,"MountOptions":{}}]}`,
	`{"Volumes":[{"ReadAllocs":{"a":{"ID":5},"b":null,"a":null}}]}`,
	`{"Volumes":[{"ID":5},{"ResourceExhausted":"x"}]}`, `{"Volumes":[{"ResourceExhausted":"x","ID":5}]}`, `{"Volumes":[{"ID":5,"Name":[]}]}`,
	`{"Volumes":[{"ID":5}],"Region":6}`, `{"Region":6,"Volumes":5}`, `{"Volumes":[{"MountOptions":{"FSType":1},"ID":5}]}`,
	`{"Volumes":[{"Secrets":{"a":{"b":[1]}}}]}`, `{"Volumes":[{"RequestedTopologies":{"Required":[{"Segments":{"a":1}}]}}]}`,
	`{"Volumes":[{"ID":5}],`, `{"Volumes":[[{"ID":1}]]}`, `{"Volumes":[5,{"ID":6}]}`, `{"Volumes":[{"ID":"a"}],"Volumes":[null]}`,
	strings.Repeat(`[`, 9999) + `x`, strings.Repeat(`[`, 10000) + `x`, strings.Repeat(`[`, 10001), `{"a":` + strings.Repeat(`[`, 9999) + `x`,
	`{"a":` + strings.Repeat(`[`, 10000), strings.Repeat(`{"a":`, 10001), `{"a":` + strings.Repeat(`[`, 5000) + strings.Repeat(`]`, 5000) + `}`,
}

var oddBodies = []string{
	oddities, `{"kept":"a","Kept":"b","KEPT":"c","kEPT":"d"}`, `{"KEPT":"c","kept":"a"}`, `{"Numbers":[1,2,3],"Numbers":[null,null],"Numbers":[null,null,null,null]}`,
	`{"Numbers":[1,2,3],"Numbers":[],"Numbers":[null]}`, `{"Lists":[["a","b"],["c"]],"Lists":[[null]],"Lists":[null,[null]]}`,
	`{"Inner":{"FSType":"a","MountFlags":[]},"Inner":null}`, `{"Inner":{"MountFlags":["a"]},"Inner":{"FSType":"b"}}`, `{"When":"2026-01-02T03:04:05Z","When":null}`,
	`{"Wait":"1s","Wait":null}`, `{"Wait":5}`, `{"Wait":1.5}`, `{"Wait":true}`, `{"Wait":[]}`, `{"Wait":{}}`, `{"Wait":9223372036854775808}`,
	`{"Flags":{"a":1}}`, `{"Flags":{"a":null}}`, `{"Inner":5}`, `{"Inner":{"fstype":5}}`, `{"Lists":[["a",5]]}`, `{"Lists":[5]}`, `{"Numbers":["x"]}`,
}

func inputs() []input {
	var all []input
	add := func(shape string, bodies ...string) {
		for _, body := range bodies {
			all = append(all, input{shape, []byte(body)})
		}
	}
	add("register", bodies...)
	add("odds", oddBodies...)
	for _, key := range keys {
		add("register", `{"`+key+`": []}`, `{"`+key+`": 5}`)
	}
	fields := []string{
		"ID", "AccessMode", "MountOptions", "Secrets", "Parameters", "RequestedCapacityMin", "RequestedCapabilities", "Schedulable",
		"ControllersHealthy", "CreateIndex", "RequestedTopologies", "Topologies", "ReadAllocs", "Allocations", "ResourceExhausted",
	}
	for _, scalar := range scalars {
		add("register", scalar, `{"Volumes": `+scalar+`}`, `{"PolicyOverride": `+scalar+`}`, `{"SecretID": `+scalar+`}`)
		add("snapshot", `{"Snapshots": [{"SizeBytes": `+scalar+`}]}`)
		add("odds", `{"Small": `+scalar+`}`, `{"Lists": [`+scalar+`]}`, `{"Inner": {"MountFlags": `+scalar+`}}`)
		for _, field := range fields {
			add("register", `{"Volumes": [{"`+field+`": `+scalar+`}]}`)
		}
	}
	for _, value := range broken {
		add("register", value, ` `+value+` `, `[`+value+`]`, `{"ID": `+value+`}`, `{"ID": `+value+`, "x": 1}`, `[1, `+value+`]`)
	}
	for _, text := range strs {
		add("register", `{"Volumes": [{"ID": "`+text+`", "Parameters": {"`+text+`": "`+text+`"}}]}`)
	}
	for _, text := range times {
		add("register", `{"Volumes": [{"ResourceExhausted": "`+text+`"}]}`)
		add("odds", `{"When": "`+text+`"}`)
	}
	for _, text := range durations {
		add("odds", `{"Wait": "`+text+`"}`)
	}
	return append(all, mutations(rand.New(rand.NewPCG(20261123, 5)))...)
}

// mutations are whole bodies with a few random edits.
func mutations(random *rand.Rand) []input {
	pieces := append(append([]string{`{`, `}`, `[`, `]`, `,`, `:`, `"`, `\`, ` `, "\n", `"ID":5,`, `"Volumes":[{}],`, "\xff"}, scalars...), broken...)
	var all []input
	for i := range 900 {
		shape, body := "register", whole
		if i%3 == 0 {
			shape, body = "odds", oddities
		}
		for range 1 + random.IntN(2) {
			from := random.IntN(len(body))
			to := min(len(body), from+random.IntN(6))
			switch random.IntN(4) {
			case 0:
				body = body[:from]
			case 1:
				body = body[:from] + body[to:]
			case 2:
				body = body[:from] + pieces[random.IntN(len(pieces))] + body[to:]
			default:
				body = body[:from] + string(rune(random.IntN(128))) + body[to:]
			}
			if body == "" {
				break
			}
		}
		all = append(all, input{shape, []byte(body)})
	}
	return all
}

func texts() []string {
	all := []string{"", "plain", `"\/`, "<>&'", "é😀\u00a0\u00ad", "\u2028 \u2029", "\ufffd\uffff", "\x7f\u0080\u009f"}
	for c := range 0x20 {
		all = append(all, "a"+string(rune(c))+"b")
	}
	return all
}
