package main

import (
	"fmt"
	"strings"

	"github.com/hashicorp/nomad/api"
	"github.com/hashicorp/nomad/api/contexts"
)

// agent is Status, Regions and Agent.
func (t *tester) agent() {
	leader, err := t.client.Status().Leader()
	must("Leader", err)
	again, err := t.client.Status().RegionLeader("global")
	must("RegionLeader", err)
	want("RegionLeader", again, leader)
	_, err = t.client.Status().RegionLeader("none")
	refused("RegionLeader of another region", err, 500, "No path to region")
	peers, err := t.client.Status().Peers()
	must("Peers", err)
	want("Peers", strings.Join(peers, ","), leader)
	regions, err := t.client.Regions().List()
	must("Regions", err)
	want("Regions", strings.Join(regions, ","), "global")

	agent := t.client.Agent()
	self, err := agent.Self()
	must("Self", err)
	want("Self, status of the member", self.Member.Status, "alive")
	region, err := agent.Region()
	must("Region", err)
	want("Region", region, "global")
	datacenter, err := agent.Datacenter()
	must("Datacenter", err)
	want("Datacenter", datacenter, "dc1")
	name, err := agent.NodeName()
	must("NodeName", err)
	members, err := agent.Members()
	must("Members", err)
	want("Members", len(members.Members), 1)
	want("the member's name", members.Members[0].Name, name)
	tags := members.Members[0].Tags
	want("the member's address", fmt.Sprintf("%s:%s", tags["rpc_addr"], tags["port"]), leader)
	_, err = agent.MembersOpts(&api.QueryOptions{Region: "global", AllowStale: true})
	must("MembersOpts", err)
	servers, err := agent.Servers()
	must("Servers", err)
	want("Servers", strings.Join(servers, ","), leader)
	health, err := agent.Health()
	must("Health", err)
	want("Health of the server", health.Server.Ok, true)
	want("Health of the client", health.Client.Ok, true)
	if count, err := agent.Join("nomad.invalid"); count != 0 || err == nil {
		fail("Join", "somebody joined")
	}
	must("ForceLeave", agent.ForceLeave("none"))
}

// plugins are CSIPlugins and Nodes.
func (t *tester) plugins() {
	listed, meta, err := t.client.CSIPlugins().List(&api.QueryOptions{Prefix: t.plugin})
	must("CSIPlugins.List", err)
	read("CSIPlugins.List", meta)
	want("CSIPlugins.List", len(listed), 1)
	want("a plugin's stub", listed[0].ID, t.plugin)
	plugin, meta, err := t.client.CSIPlugins().Info(t.plugin, nil)
	must("CSIPlugins.Info", err)
	read("CSIPlugins.Info", meta)
	want("controllers", plugin.ControllersHealthy, plugin.ControllersExpected)
	want("nodes", plugin.NodesHealthy, plugin.NodesExpected)
	want("entries of controllers", len(plugin.Controllers), plugin.ControllersExpected)
	if plugin.Provider == "" || plugin.Version == "" || plugin.ControllersHealthy < 1 {
		fail("the plugin", *plugin)
	}
	for _, controller := range plugin.Controllers {
		want("create and delete", controller.ControllerInfo.SupportsCreateDelete, true)
		want("the health of a controller", controller.Healthy, true)
	}
	_, _, err = t.client.CSIPlugins().Info("none", nil)
	refused("a plugin that is not there", err, 404, "plugin not found")

	nodes, meta, err := t.client.Nodes().List(nil)
	must("Nodes.List", err)
	read("Nodes.List", meta)
	if len(nodes) < 1 {
		fail("Nodes.List", "there is none")
	}
	t.node = nodes[0].ID
	found, _, err := t.client.Nodes().PrefixList(t.node)
	must("Nodes.PrefixList", err)
	want("Nodes.PrefixList", found[0].ID, t.node)
	_, _, err = t.client.Nodes().PrefixListOpts(t.node, &api.QueryOptions{Params: map[string]string{"resources": "true"}})
	must("Nodes.PrefixListOpts", err)
	node, meta, err := t.client.Nodes().Info(t.node, nil)
	must("Nodes.Info", err)
	read("Nodes.Info", meta)
	want("a node's status", node.Status, "ready")
	want("the plugin on the node", node.CSIControllerPlugins[t.plugin].PluginID, t.plugin)
	want("numbers that the CLI subtracts", *node.Resources.CPU-*node.Reserved.CPU, 0)
	want("numbers that the CLI subtracts", node.NodeResources.Memory.MemoryMB, 0)
	allocations, _, err := t.client.Nodes().Allocations(t.node, nil)
	must("Nodes.Allocations", err)
	want("Nodes.Allocations", len(allocations), 0)
	volumes, err := t.client.Nodes().CSIVolumes(t.node, &api.QueryOptions{Namespace: "*"})
	must("Nodes.CSIVolumes", err)
	want("Nodes.CSIVolumes", len(volumes), 0)
	_, err = t.client.Nodes().Stats(t.node, nil)
	refused("Nodes.Stats", err, 404, "No path to node")
	_, _, err = t.client.Nodes().Info("none", nil)
	refused("a node that is not there", err, 404, "node not found")
}

// namespaces are made, listed, used, refused and deleted.
func (t *tester) namespaces() {
	namespaces := t.client.Namespaces()
	name := t.run
	_, _, err := namespaces.Info(name, nil)
	refused("Namespaces.Info of nothing", err, 404, "Namespace not found")
	meta, err := namespaces.Register(&api.Namespace{Name: name, Description: "a", Meta: map[string]string{"b": "c"}}, nil)
	must("Namespaces.Register", err)
	if meta.LastIndex == 0 {
		fail("Namespaces.Register", "X-Nomad-Index is 0")
	}
	found, readMeta, err := namespaces.Info(name, nil)
	must("Namespaces.Info", err)
	read("Namespaces.Info", readMeta)
	want("its description and metadata", found.Description+found.Meta["b"], "ac")
	listed, _, err := namespaces.PrefixList(name, nil)
	must("Namespaces.PrefixList", err)
	want("Namespaces.PrefixList", len(listed), 1)
	all, readMeta, err := namespaces.List(nil)
	must("Namespaces.List", err)
	read("Namespaces.List", readMeta)
	if len(all) < 2 {
		fail("Namespaces.List", len(all))
	}

	here := &api.WriteOptions{Namespace: name}
	volume := t.create(t.definition(t.run+"-here"), here)
	want("a volume's namespace", volume.Namespace, name)
	_, _, err = t.client.CSIVolumes().Info(volume.ID, nil)
	refused("the volume in another namespace", err, 404, "volume not found")
	_, err = namespaces.Delete(name, nil)
	refused("Delete of a namespace with volumes", err, 500, "has volumes associated with it")
	t.destroy(volume.ID, here)
	_, err = namespaces.Delete(name, nil)
	must("Namespaces.Delete", err)
	_, err = namespaces.Delete(name, nil)
	refused("Namespaces.Delete of nothing", err, 500, "namespace not found")
	_, err = namespaces.Delete("default", nil)
	refused("Namespaces.Delete of the default", err, 500, "can not delete default namespace")
}

// search is Search.
func (t *tester) search() {
	id := t.run + "-searched"
	t.create(t.definition(id), nil)
	for _, context := range []contexts.Context{contexts.Volumes, contexts.All} {
		found, _, err := t.client.Search().PrefixSearch(id, context, &api.QueryOptions{Namespace: "default"})
		must("PrefixSearch", err)
		want("PrefixSearch", strings.Join(found.Matches[contexts.Volumes], ","), id)
		want("PrefixSearch, truncated", found.Truncations[contexts.Volumes], false)
	}
	found, _, err := t.client.Search().PrefixSearch(t.plugin, contexts.Plugins, nil)
	must("PrefixSearch of plugins", err)
	want("PrefixSearch of plugins", found.Matches[contexts.Plugins][0], t.plugin)
	nodes, _, err := t.client.Search().PrefixSearch(t.node, contexts.Nodes, nil)
	must("PrefixSearch of nodes", err)
	want("PrefixSearch of nodes", nodes.Matches[contexts.Nodes][0], t.node)
	fuzzy, _, err := t.client.Search().FuzzySearch("efaul", contexts.Namespaces, nil)
	must("FuzzySearch", err)
	want("FuzzySearch", fuzzy.Matches[contexts.Namespaces][0].ID, "default")
	everything, _, err := t.client.Search().FuzzySearch(id, contexts.All, nil)
	must("FuzzySearch of everything", err)
	want("FuzzySearch of everything", everything.Matches[contexts.Volumes][0].ID, id)
	_, _, err = t.client.Search().PrefixSearch("", "none", nil)
	refused("PrefixSearch of an unknown context", err, 500, "context must be one of")
	_, _, err = t.client.Search().FuzzySearch("a", contexts.All, nil)
	refused("FuzzySearch of one letter", err, 500, "at least 2 characters")
	t.destroy(id, nil)
}

// others are what the client asks beside volumes: there is none of it, and it says so.
func (t *tester) others() {
	jobs, meta, err := t.client.Jobs().List(nil)
	must("Jobs.List", err)
	read("Jobs.List", meta)
	want("Jobs.List", len(jobs), 0)
	allocations, _, err := t.client.Allocations().List(&api.QueryOptions{Namespace: "*"})
	must("Allocations.List", err)
	want("Allocations.List", len(allocations), 0)
	evaluations, _, err := t.client.Evaluations().List(nil)
	must("Evaluations.List", err)
	want("Evaluations.List", len(evaluations), 0)
	deployments, _, err := t.client.Deployments().List(nil)
	must("Deployments.List", err)
	want("Deployments.List", len(deployments), 0)
	_, _, err = t.client.Jobs().Info("none", nil)
	refused("Jobs.Info", err, 404, "job not found")
	_, _, err = t.client.ACLPolicies().List(nil)
	refused("ACLPolicies.List", err, 400, "ACL support disabled")
	token, _, err := t.client.ACLTokens().Self(nil)
	must("ACLTokens.Self", err)
	want("ACLTokens.Self", token.AccessorID, "acls-disabled")
	host, _, err := t.client.HostVolumes().List(nil, nil)
	must("HostVolumes.List", err)
	want("HostVolumes.List", len(host), 0)
}
