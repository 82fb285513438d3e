package main

import (
	"math/rand/v2"
	"strings"
)

var selectors = []string{
	`ID`, `Name`, `AccessMode`, `Capacity`, `Healthy`, `CreateIndex`, `Schedulable`, `Parameters`, `Context`, `Flags`, `NoFlags`, `Modes`, `Numbers`,
	`Switches`, `Lists`, `Topologies`, `MountOptions`, `NoOptions`, `Inline`, `Request`, `ReadAllocs`, `Maps`, `Counts`, `When`, `WhenOrNever`,
	`Parameters.k`, `Parameters.nope`, `Parameters["k.x"]`, "Parameters[`a/b`]", `Parameters[ "" ]`, `Parameters.5`, `Parameters.k.x`, `Context.k`,
	`Context.k.x`, `Flags.0`, `Flags.9`, `Flags.x`, `Flags["0"]`, `Flags[""]`, `Lists.0`, `Lists.1`, `Lists.0.0`, `Numbers.1`, `Topologies.0.Segments.rack`,
	`Topologies.1.Segments.zone`, `Topologies.0.Segments.zone`, `Topologies.7.Segments`, `MountOptions.FSType`, `MountOptions.Nope`, `MountOptions.MountFlags`,
	`NoOptions.FSType`, `Inline.FSType`, `Request.Required`, `Request.Preferred`, `Request.Required.0.Segments`, `ReadAllocs.alloc`, `ReadAllocs.other`,
	`ReadAllocs.alloc.FSType`, `ReadAllocs.other.FSType`, `ReadAllocs.nope`, `ReadAllocs.nope.FSType`, `Maps.outer`, `Maps.outer.inner`, `Maps.outer.nope`,
	`Maps.none`, `Maps.none.x`, `Maps.nope.x`, `Counts.one`, `Counts.two`, `When.wall`, `ID.x`, `Capacity.x`, `Schedulable.x`, `Bogus`, `Bogus.x`, `id`,
	`"/ID"`, `"/Parameters/k"`, `"/Parameters/a~1b"`, `"/Parameters/größe"`, `"/Flags/1"`, `"/Topologies/0/Segments/rack"`, `"/Bogus"`, `""`, `"/Parameters/5"`,
	`"/Parameters/k.x"`, `not`, `any`, `in`, `is`, `all`, `Parameters.not`, `a/b`, `Parameters["größe"]`,
}

var values = []string{
	`"f-a"`, `f`, `v`, `"v"`, "`v`", `""`, `1`, `-1`, `0`, `-0`, `1048576`, `0.5`, `1.0`, `true`, `"true"`, `T`, `"t"`, `false`, `"0x100000"`, `"0b1"`, `"0o17"`, `"017"`,
	`"1_048_576"`, `"1__0"`, `"_1"`, `"0x"`, `"08"`, `"+1"`, `18446744073709551615`, `"18446744073709551616"`, `9223372036854775808`, `"-9223372036854775809"`,
	`"größe"`, `"\u0067r"`, `"/a/b"`, `"/v"`, `ro`, `m`, `rack`, `"5"`, `5`, `x.y["z"].3`, `"x y"`, `not`, `and`,
}

var comparisons = []string{`==`, `!=`, ` contains `, ` not contains `, ` matches `, ` not matches `}
var tests = []string{` is empty`, ` is not empty`, ` is nil`, ` is not nil`}
var memberships = []string{` in `, ` not in `}

var patterns = []string{
	`"^f"`, `"a$"`, `"(?i)F-A"`, `"^.{3}$"`, "`\\d+`", `"("`, `"["`, `"a**"`, `"a{1001}"`, `"(?P<n"`, `"x{2,1}"`, `"[b-a]"`, "`\\8`", `"(?i"`, `")"`, `"*"`, `"(?z)"`,
	"`\\pX`", `"[[:foo:]]"`, `"(?=a)"`, "`\\1`", `"(((a{100}){100}){100})"`, `"ö"`, `"^größe .$"`, `"😀"`, `"(a*)*$"`, `"(?s)."`, `""`, "`\\pL`", "`\\bf\\b`", "`\\Af-a\\z`", "`\\Qf-a\\E`",
	"`\\`", `"[[:alpha:]]+"`, `"(f|g)-(?:a|b)"`, `"f-a|"`, `"(?U)f+"`, `"a{,2}"`, `"a{2"`,
}

// written is what documentation and people write, and what they get wrong.
var written = []string{
	``, ` `, "\t\r\n", `(`, `)`, `()`, `( )`, `(ID == "f-a")`, `((ID == "f-a"))`, ` ( ( ID == "f-a" ) ) `, `(ID == "f-a"`, `ID == "f-a")`, `((ID == "f-a")`,
	`(ID == "f-a" or Name == "x") and Healthy == -1`, `ID=="f-a"`, `ID=="f-a"and Name=="x"`, `ID=="f-a" and(Name=="x")`, `not(ID == "x")`, `not (ID == "x")`,
	`not ID == "x"`, `not not ID == "f-a"`, `not not not ID == "f-a"`, `not  (not ID == "x")`, `notID == "x"`, `not`, `not `, `not not`, `ID`, `ID `, `ID ==`, `ID == `,
	`ID = "x"`, `ID === "x"`, `ID > 1`, `ID == "x" ID`, `ID == "x" and`, `ID == "x" and `, `ID == "x" or`, `ID == "x" or or`, `and`, `and == 1`, `or`, `ID == "x" and and == 1`,
	`ID == "x" AND ID == "y"`, `ID == "x" && ID == "y"`, `ID in "x"`, `ID in`, `ID in `, `"x" in`, `"x" in "y"`, `"x" in 5`, `5 in Numbers`, `-5 in Numbers`, `"x" in x"`, `x not in "y"`,
	`ID is`, `ID is `, `ID is not`, `ID is empt`, `ID is emptyand`, `ID is empty and ID is not empty`, `ID is not  empty`, `ID is  nil`, `ID isempty`, `ID not`, `ID not `, `ID not is empty`,
	`ID contains`, `ID containsx`, `ID contains "f" or x`, `ID not contains f`, `"f" contains ID`, `ID matches`, `ID matches ID`, `ID startswith "f"`, `"unclosed`, `ID == "unclosed`,
	"ID == `unclosed", `ID == 'x'`, `ID == "a\"b"`, `ID == "a\x41"`, `ID == "\x66-a"`, `ID == "\146-a"`, `ID == "\u0066-a"`, `ID == "\U00000066-a"`, `ID == "\q"`, `ID == "\'"`, `ID == "\400"`,
	`ID == "\ud800"`, "ID == \"a\nb\"", "ID == `a\nb`", "ID ==\n\"f-a\"", "ID\n==\n\n\"f-a\" x", "\n\nID > 1", "ID == \"größe\" x", `größe == 1`, `ID == größe`, `ID == 12a`, `ID == 01`, `ID == 1.`,
	`ID == 1.5.5`, `ID == -`, `ID == -a`, `ID == .5`, `ID == +5`, `ID == 1e5`, `ID == 0x10`, `ID == 5)`, `(ID == 5)`, `(ID == 5a)`, `ID == 5 and ID == 6`, `ID == 5and`, `ID[0] == 1`, `ID["x"`, `ID["x" `,
	`ID["x" y]`, `ID[`, `ID[]`, `ID["x`, `ID[x]`, `ID["x"].y == 1`, `ID[ "x" ] == 1`, `ID. == 1`, `ID.5a == 1`, `ID..x == 1`, `.ID == 1`, `ID.x.5.y == 1`, `_ID == 1`, `5 == ID`, `"/ID" == "f-a"`, `"/ID == 1`,
	`"/ID/" == 1`, `"//ID" == 1`, `"/I D" == 1`, `"ID" == "f-a"`, `"/ID" in Name`, `"" in Name`, `"" == ""`, `/ID == 1`, `"/Parameters/a/b" == c`, `"/Parameters/a~1b" == "c"`, `"/Parameters/~0" is empty`,
	`any`, `any `, `any x`, `any Flags`, `any Flags as`, `any Flags as x`, `any Flags as x {`, `any Flags as x { }`, `any Flags as x { x == "ro" }`, `any Flags as x { x == ro`, `any Flags as x {x=="ro"}`,
	`any Flags as x{x == "ro"}`, `any Flags as x { x == 5 }`, `any Flags as x { x == 5}`, `all Flags as x { x == "ro" }`, `all Flags as x { x != "zz" }`, `any Flags as i, x { i == 1 and x == "rw" }`,
	`any Flags as i,x { i == 1 and x == "ro" }`, `any Flags as i, _ { i == 3 }`, `any Flags as _, x { x == "rw" }`, `any Flags as _ { x == 1 }`, `any Flags as _, _ { x == 1 }`, `any Flags as x, x { x == 1 }`,
	`any NoFlags as x, x { x == 1 }`, `all NoFlags as x { x == 1 }`, `any NoFlags as x { x == 1 }`, `any Parameters as k { k == "k" }`, `any Parameters as k, v { k == "k" and v == "v" }`,
	`all Parameters as k, v { v is not empty }`, `any Parameters as _, v { v == "y" }`, `any Parameters as k { k.x == 1 }`, `any Flags as i, x { i.y == 1 }`, `any Context as k { k == 1 }`, `all Context as k { k == 1 }`,
	`any Parameters.nope as k { k == 1 }`, `all Parameters.nope as k { k == 1 }`, `any ID as x { x == 1 }`, `any MountOptions as x { x == 1 }`, `any NoOptions as x { x == 1 }`, `any Bogus as x { x == 1 }`,
	`any Topologies as t { t.Segments.rack == "r2" }`, `any Topologies as t { t.Segments.zone == "z" }`, `all Topologies as t { t.Segments.zone is empty }`, `any Topologies as t { t.Bogus == 1 }`,
	`any Topologies as t { any t.Segments as k, v { k == "zone" and v == "z" } }`, `all Topologies as t { any t.Segments as k, v { k == "zone" and v == "z" } }`,
	`any Topologies as i, t { i == 1 and t.Segments.zone == "z" }`, `any Topologies as t { t.Segments.rack == "r1" and Schedulable == true }`, `any Lists as l { "a" in l }`, `any Lists as l { any l as x { x == "a" } }`,
	`any Counts as k, v { v == 1 }`, `any Counts as k, v { v == x }`, `any Maps as k, v { v.inner == "x" }`, `all Maps as k, v { v is not empty }`, `any Flags as x { any Flags as x { x == "rw" } }`,
	`any Flags as x { ID == "f-a" }`, `any Flags as ID { ID == "ro" }`, `not any Flags as x { x == "ro" }`, `not (any Flags as x { x == "ro" })`, `any Flags as x { x == "ro" } and ID == "f-a"`,
	`any Flags as x { x == "ro" } or ID == "f-a"`, `(any Flags as x { x == "ro" }) or ID == "f-a"`, `ID == "x" or any Flags as x { x == "ro" }`, `ID == "f-a" and any Flags as x { x == "ro" }`,
	`ID == "f-a" and (any Flags as x { x == "ro" })`, `any any as x { x == 1 }`, `any == 1`, `any in Flags`, `any is empty`, `all is empty`, `all contains x`, `any not in Flags`, `any in as x { x == 1 }`,
	`any not as x { x == 1 }`, `any is as x { x == 1 }`, `any contains as x { x == 1 }`, `ANY Flags as x { x == 1 }`, `any "/Flags" as x { x == "ro" }`, `any "/Topologies/1/Segments" as k, v { v == "z" }`,
	`any Flags as 5 { x == 1 }`, `any Flags as x y { x == 1 }`, `any Flags as x, { x == 1 }`, `any Flags as x { x == 1 } }`, `any Flags x { x == 1 }`, `any  Flags  as  x  {  x  ==  "ro"  }`,
	`not in Flags`, `not in in`, `not in == 1`, `not in in Flags`, `not in contains x`, `not in is empty`, `not not in Flags`, `not contains x`, `not contains contains x`, `not matches "x"`, `not is empty`, `not is nil`,
	`not is is empty`, `not is not empty`, `not == 1`, `not != 1`, `not.x == 1`, `not["x"] == 1`, `not not == 1`, `not in.x == 1`, `not in["x"] == 1`, `in in in`, `in in Flags`, `is is empty`, `is == 1`, `is is nil`,
	`contains contains contains`, `matches matches matches`, `or == 1 or or == 2`, `empty is empty`, `nil is nil`, `not in contains and x == 1`, `not in contains`, `x == not`, `x == not in y`, `x == and and y == or`,
	`ID == "f-a" or Bogus == 1`, `ID == "x" and Bogus == 1`, `ID == "x" or Bogus == 1`, `Bogus == 1 or ID == "f-a"`, `not Bogus == 1`, `ID == "x" or ID == "y" or ID == "f-a"`, `ID == "f-a" and ID == "f-a" and ID == "x"`,
	`ID == "f-a" and ID == "x" or ID == "f-a"`, `ID == "f-a" or ID == "x" and ID == "y"`, `not ID == "x" and not ID == "y"`, `not ID == "f-a" or ID == "f-a"`, "\u00a0ID == 1", "ID\u00a0== 1", "ID == \"\x00\"",
	`ID == "f-a" # comment`, `ID; x`, `true`, `1 == 1`, `"a" == "a"`, `ID == ID`, `Name in ID`, `ID in Name`, `f in ID`, `f-a in ID`,
}

func expressions() []string {
	all := append([]string{}, written...)
	for _, selector := range selectors {
		for _, operator := range comparisons[:2] {
			all = append(all, selector+operator+`"v"`, selector+" "+operator+" 1")
		}
		for _, test := range tests {
			all = append(all, selector+test)
		}
		all = append(all, selector+` contains v`, `"v" not in `+selector, selector+` matches "^v"`, `any `+selector+` as k, v { k == "k" or v == "ro" }`)
	}
	for _, value := range values {
		for _, selector := range []string{`ID`, `Capacity`, `Healthy`, `CreateIndex`, `Schedulable`, `Parameters.k`, `Flags`, `Numbers`, `Switches`, `Parameters`, `Modes`} {
			all = append(all, selector+` == `+value, value+` in `+selector)
		}
	}
	for _, pattern := range patterns {
		all = append(all, `ID matches `+pattern, `Name not matches `+pattern)
	}
	random := rand.New(rand.NewPCG(20261123, 9))
	for range 500 {
		all = append(all, made(random, 3))
	}
	for range 900 {
		all = append(all, spoiled(random, made(random, 2)))
	}
	for range 500 {
		all = append(all, soup(random))
	}
	return all
}

func pick(random *rand.Rand, from []string) string { return from[random.IntN(len(from))] }

// made is an expression by the rules, of fields that often exist.
func made(random *rand.Rand, depth int) string {
	switch kind := random.IntN(10); {
	case depth == 0 || kind < 4:
		switch random.IntN(3) {
		case 0:
			return pick(random, selectors) + pick(random, tests)
		case 1:
			return pick(random, values) + pick(random, memberships) + pick(random, selectors)
		default:
			return pick(random, selectors) + pick(random, comparisons) + pick(random, values)
		}
	case kind < 6:
		return "(" + made(random, depth-1) + pick(random, []string{" or ", " and "}) + made(random, depth-1) + ")"
	case kind < 8:
		return made(random, depth-1) + pick(random, []string{" or ", " and ", "\tor\n", " and  "}) + made(random, depth-1)
	case kind < 9:
		return "not " + made(random, depth-1)
	default:
		inner := pick(random, []string{`x == "ro"`, `x in Flags`, `x is empty`, made(random, depth-1)})
		return pick(random, []string{"any ", "all "}) + pick(random, selectors) + " as " + pick(random, []string{"x", "i, x", "x, _", "_, x"}) + " { " + inner + " }"
	}
}

var words = []string{
	"ID", "Flags", "x", "not", "any", "all", "in", "is", "empty", "nil", "contains", "matches", "and", "or", "as", "==", "!=", "=", "(", ")", "{", "}", "[", "]", `"a"`, "`b`", `"`,
	"`", "5", "-1", "0", ".", ",", "_", "/", `"/ID"`, "1.5", "-", `["k"]`, ".k", ".5", ">", "é", "\\",
}

// spoiled is an expression with an edit that often breaks it.
func spoiled(random *rand.Rand, expression string) string {
	from := random.IntN(len(expression))
	to := min(len(expression), from+random.IntN(4))
	switch random.IntN(3) {
	case 0:
		return strings.ToValidUTF8(expression[:from], "")
	case 1:
		return strings.ToValidUTF8(expression[:from]+expression[to:], "")
	default:
		return strings.ToValidUTF8(expression[:from]+pick(random, words)+expression[to:], "")
	}
}

// soup is words in any order.
func soup(random *rand.Rand) string {
	var parts []string
	for range 1 + random.IntN(7) {
		parts = append(parts, pick(random, words))
	}
	return strings.Join(parts, pick(random, []string{" ", " ", ""}))
}
