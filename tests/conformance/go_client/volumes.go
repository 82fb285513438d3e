package main

import (
	"strings"
	"time"

	"github.com/hashicorp/nomad/api"
)

// definition is a volume of this run that the plugin can make.
func (t *tester) definition(id string) *api.CSIVolume {
	return &api.CSIVolume{
		ID:       id,
		Name:     id,
		PluginID: t.plugin,
		RequestedCapabilities: []*api.CSIVolumeCapability{{
			AccessMode:     api.CSIVolumeAccessModeSingleNodeWriter,
			AttachmentMode: api.CSIVolumeAttachmentModeFilesystem,
		}},
	}
}

// create makes a volume and reads it.
func (t *tester) create(volume *api.CSIVolume, options *api.WriteOptions) *api.CSIVolume {
	made, meta, err := t.client.CSIVolumes().Create(volume, options)
	must("Create "+volume.ID, err)
	want("Create, volumes of the answer", len(made), 1)
	if made[0].ExternalID == "" || meta.LastIndex == 0 {
		fail("Create "+volume.ID, "the answer has no external ID or no index")
	}
	query := &api.QueryOptions{}
	if options != nil {
		query.Namespace = options.Namespace
	}
	found, readMeta, err := t.client.CSIVolumes().Info(volume.ID, query)
	must("Info right after Create", err)
	read("Info", readMeta)
	want("Info, ID", found.ID, volume.ID)
	want("Info, external ID", found.ExternalID, made[0].ExternalID)
	return found
}

// destroy deletes a volume at its provider, and it is gone.
func (t *tester) destroy(id string, options *api.WriteOptions) {
	request := &api.CSIVolumeDeleteRequest{ExternalVolumeID: id, Secrets: api.CSISecrets{"key": "value"}}
	must("DeleteOpts "+id, t.client.CSIVolumes().DeleteOpts(request, options))
	query := &api.QueryOptions{}
	if options != nil {
		query.Namespace = options.Namespace
	}
	_, _, err := t.client.CSIVolumes().Info(id, query)
	refused("Info of a deleted volume", err, 404, "volume not found")
}

// volume is the life of one volume: created with everything, read, updated, expanded, deleted.
func (t *tester) volume() {
	id := t.run + "-life"
	volume := t.definition(id)
	volume.MountOptions = &api.CSIMountOptions{FSType: "ext4", MountFlags: []string{"noatime"}}
	volume.Secrets = api.CSISecrets{"password": "xyzzy"}
	volume.RequestedCapacityMin = 1 << 20
	volume.RequestedCapacityMax = 1 << 30
	found := t.create(volume, nil)
	want("Info, namespace", found.Namespace, "default")
	want("Info, plugin", found.PluginID, t.plugin)
	want("Info, secrets", len(found.Secrets), 0)
	want("Info, mount flags", strings.Join(found.MountOptions.MountFlags, ","), "[REDACTED]")
	want("Info, FSType", found.MountOptions.FSType, "ext4")
	want("Info, schedulable", found.Schedulable, true)
	want("Info, controllers", found.ControllersHealthy, found.ControllersExpected)
	want("Info, ResourceExhausted", found.ResourceExhausted.IsZero(), true)
	want("Info, allocations", len(found.Allocations)+len(found.ReadAllocs)+len(found.WriteAllocs), 0)
	if found.Capacity < 1<<20 || found.CreateTime == 0 || found.ModifyIndex < found.CreateIndex {
		fail("Info", "capacity, time or index")
	}
	if age := time.Since(time.Unix(0, found.CreateTime)); age < -time.Minute || age > time.Hour {
		fail("Info, create time", age)
	}

	grown := t.definition(id)
	grown.MountOptions = volume.MountOptions
	grown.RequestedCapacityMin = 4 << 20
	grown.RequestedCapacityMax = 1 << 30
	after := t.create(grown, nil)
	want("an update by Create keeps the storage", after.ExternalID, found.ExternalID)
	if after.Capacity < 4<<20 || after.ModifyIndex <= found.ModifyIndex {
		fail("an expansion", after.Capacity)
	}

	meta, err := t.client.CSIVolumes().Register(grown, &api.WriteOptions{})
	must("Register as an update", err)
	if meta.LastIndex == 0 {
		fail("Register", "X-Nomad-Index is 0")
	}
	response, _, err := t.client.CSIVolumes().RegisterOpts(
		&api.CSIVolumeRegisterRequest{Volumes: []*api.CSIVolume{grown}}, nil)
	must("RegisterOpts", err)
	want("RegisterOpts, volumes", len(response.Volumes), 1)
	want("RegisterOpts, warnings", response.Warnings, "")

	created, _, err := t.client.CSIVolumes().CreateOpts(&api.CSIVolumeCreateRequest{Volumes: []*api.CSIVolume{grown}}, nil)
	must("CreateOpts", err)
	want("CreateOpts, volumes", len(created.Volumes), 1)

	must("Detach of a volume that nobody holds", t.client.CSIVolumes().Detach(id, t.node, nil))
	t.destroy(id, nil)

	again := t.create(t.definition(id), nil)
	if again.ExternalID == found.ExternalID || again.CreateIndex <= after.ModifyIndex {
		fail("a volume made again", "it has the old storage or an old index")
	}
	must("Delete", t.client.CSIVolumes().Delete(id, nil))
}

// refusals are the errors that clients decide on.
func (t *tester) refusals() {
	volumes := t.client.CSIVolumes()
	_, _, err := volumes.Info(t.run+"-none", nil)
	refused("Info of nothing", err, 404, "volume not found")
	refused("Delete of nothing", volumes.Delete(t.run+"-none", nil), 500, "volume not found: "+t.run+"-none")
	refused("Deregister of nothing", volumes.Deregister(t.run+"-none", true, nil), 500, "volume not found: ")
	refused("Detach of nothing", volumes.Detach(t.run+"-none", t.node, nil), 500, "no such volume")
	refused("Detach without a node", volumes.Detach(t.run+"-none", "", nil), 400, "detach requires node ID")

	volume := t.definition(t.run + "-bad")
	volume.RequestedCapabilities = nil
	_, _, err = volumes.Create(volume, nil)
	refused("Create without capabilities", err, 500, "validation: must include at least one capability block")
	volume = t.definition(t.run + "-bad")
	volume.PluginID = "none"
	_, _, err = volumes.Create(volume, nil)
	refused("Create with an unknown plugin", err, 500, "no CSI plugin named: none could be found")
	volume = t.definition(t.run + "-bad")
	volume.RequestedCapacityMin, volume.RequestedCapacityMax = 2<<20, 1<<20
	_, _, err = volumes.Create(volume, nil)
	refused("Create with a limit below the requirement", err, 500, "LimitBytes cannot be less than")
	volume = t.definition(t.run + "-bad")
	_, _, err = volumes.Create(volume, &api.WriteOptions{Namespace: t.run + "-none"})
	refused("Create in an unknown namespace", err, 500, "nonexistent namespace")
	_, err = volumes.Register(volume, &api.WriteOptions{Region: "none"})
	refused("Register in another region", err, 500, "No path to region")

	id := t.run + "-kept"
	t.create(t.definition(id), nil)
	renamed := t.definition(id)
	renamed.Name = "another"
	_, _, err = volumes.Create(renamed, nil)
	refused("another name", err, 500, "1 error occurred:\n\t* 1 error occurred:\n\t* volume name cannot be updated")
	_, err = volumes.Register(renamed, nil)
	refused("another name by Register", err, 500, "unable to update volume: 1 error occurred:")
	t.destroy(id, nil)
}

// oddIDs are sent raw by some methods and escaped by others.
func (t *tester) oddIDs() {
	for _, suffix := range []string{" vol[0]", "[1]", " ü", ".v1~x+y"} {
		id := t.run + suffix
		volume := t.definition(id)
		request := &api.CSIVolumeCreateRequest{Volumes: []*api.CSIVolume{volume}}
		_, _, err := t.client.CSIVolumes().CreateOpts(request, nil)
		must("Create "+id, err)
		found, _, err := t.client.CSIVolumes().Info(id, nil)
		must("Info "+id, err)
		want("Info, ID", found.ID, id)
		must("Deregister "+id, t.client.CSIVolumes().Deregister(id, false, nil))
		volume.ExternalID = found.ExternalID
		_, err = t.client.CSIVolumes().Register(volume, nil)
		must("Register "+id, err)
		t.destroy(id, nil)
	}
	_, _, err := t.client.CSIVolumes().Info("a/b", nil)
	refused("Info of an ID with a slash", err, 405, "Invalid method")
}

// ids lists volumes of this run in the order in which the answers hold them.
func (t *tester) ids(options *api.QueryOptions) ([]string, *api.QueryMeta) {
	listed, meta, err := t.client.CSIVolumes().List(options)
	must("List", err)
	var ids []string
	for _, volume := range listed {
		ids = append(ids, volume.ID)
	}
	return ids, meta
}

// lists are the query options of List.
func (t *tester) lists() {
	names := []string{"a", "b", "c", "d", "e"}
	for _, name := range names {
		t.create(t.definition(t.run+"-list-"+name), nil)
	}
	prefix := t.run + "-list-"
	all, meta := t.ids(&api.QueryOptions{
		Prefix: prefix, AllowStale: true, Region: "global", Namespace: "default", AuthToken: "any, while ACLs are off",
		Headers: map[string]string{"X-Nomad-CSI-Secrets": ""},
	})
	read("List", meta)
	want("List, volumes", len(all), len(names))

	seen, token := map[string]bool{}, ""
	for page := 0; ; page++ {
		if page > len(names) {
			fail("pages", "they do not end")
		}
		ids, meta := t.ids(&api.QueryOptions{Prefix: prefix, PerPage: 2, NextToken: token})
		if len(ids) > 2 {
			fail("a page of 2", ids)
		}
		for _, id := range ids {
			if seen[id] {
				fail("a volume on two pages", id)
			}
			seen[id] = true
		}
		if token = meta.NextToken; token == "" {
			break
		}
		if !strings.HasPrefix(token, "default."+prefix) {
			fail("a token of volumes", token)
		}
	}
	want("all pages together", len(seen), len(names))

	found, _ := t.ids(&api.QueryOptions{Filter: `ID == "` + prefix + `c" and Schedulable == true`})
	want("a filter", strings.Join(found, ","), prefix+"c")
	_, _, err := t.client.CSIVolumes().List(&api.QueryOptions{Filter: "nonsense ("})
	refused("a bad filter", err, 400, "failed to read filter expression")
	everywhere, _ := t.ids(&api.QueryOptions{Namespace: "*", Prefix: prefix, Reverse: true})
	want("namespace *", len(everywhere), len(names))
	by, _ := t.ids(&api.QueryOptions{Params: map[string]string{"plugin_id": t.plugin}, Prefix: prefix})
	want("plugin_id", len(by), len(names))
	none, _ := t.ids(&api.QueryOptions{Params: map[string]string{"plugin_id": "none"}})
	want("plugin_id of nothing", len(none), 0)
	listed, _, err := t.client.CSIVolumes().PluginList(prefix + "a")
	must("PluginList", err)
	want("PluginList, which asks for a prefix of volumes", len(listed), 1)
	want("stub, namespace", listed[0].Namespace, "default")
	want("stub, plugin", listed[0].PluginID, t.plugin)
	want("stub, readers", listed[0].CurrentReaders+listed[0].CurrentWriters, 0)
	_, _, err = t.client.CSIVolumes().List(&api.QueryOptions{Region: "none"})
	refused("List in another region", err, 500, "No path to region")
	for _, name := range names {
		t.destroy(prefix+name, nil)
	}
}

// blocking waits for changes: none, of the list, of one volume, and its end.
func (t *tester) blocking() {
	id := t.run + "-watched"
	_, meta := t.ids(nil)
	started := time.Now()
	_, after := t.ids(&api.QueryOptions{WaitIndex: meta.LastIndex, WaitTime: 1500 * time.Millisecond})
	if waited := time.Since(started); waited < 1400*time.Millisecond || waited > 6*time.Second {
		fail("a wait for nothing of 1.5 s", waited)
	}
	want("the index of a wait for nothing", after.LastIndex, meta.LastIndex)

	woken := make(chan uint64, 1)
	go func() {
		_, found := t.ids(&api.QueryOptions{WaitIndex: meta.LastIndex, WaitTime: 20 * time.Second})
		woken <- found.LastIndex
	}()
	time.Sleep(300 * time.Millisecond)
	volume := t.create(t.definition(id), nil)
	if index := <-woken; index <= meta.LastIndex {
		fail("a list that was woken", index)
	}

	gone := make(chan error, 1)
	go func() {
		for index := volume.ModifyIndex; ; {
			options := &api.QueryOptions{WaitIndex: index, WaitTime: 20 * time.Second}
			found, meta, err := t.client.CSIVolumes().Info(id, options)
			if err != nil {
				gone <- err
				return
			}
			_, index = found, meta.LastIndex
		}
	}()
	time.Sleep(300 * time.Millisecond)
	started = time.Now()
	t.destroy(id, nil)
	refused("a read that waits for the end of its volume", <-gone, 404, "volume not found")
	if waited := time.Since(started); waited > 10*time.Second {
		fail("the end of a volume, seconds until it was seen", waited)
	}
}

// registered lists what the provider has, forgets a volume and knows it again.
func (t *tester) registered() {
	id := t.run + "-registered"
	made := t.create(t.definition(id), nil)
	must("Deregister", t.client.CSIVolumes().Deregister(id, false, nil))
	external, token := (*api.CSIVolumeExternalStub)(nil), ""
	for page := 0; external == nil; page++ {
		listed, _, err := t.client.CSIVolumes().ListExternal(t.plugin, &api.QueryOptions{PerPage: 1, NextToken: token})
		must("ListExternal", err)
		if len(listed.Volumes) > 1 || page > 1000 {
			fail("a page of 1 of ListExternal", len(listed.Volumes))
		}
		for _, volume := range listed.Volumes {
			if volume.ExternalID == made.ExternalID {
				external = volume
			}
		}
		if token = listed.NextToken; token == "" {
			break
		}
	}
	if external == nil {
		fail("ListExternal", "a deregistered volume is not in it: its storage is gone")
	}
	if external.CapacityBytes < 0 || external.IsAbnormal {
		fail("ListExternal", *external)
	}
	volume := t.definition(id)
	volume.ExternalID = made.ExternalID
	_, err := t.client.CSIVolumes().Register(volume, nil)
	must("Register of what the provider has", err)
	t.destroy(id, nil)
	volume.ExternalID = "no-such-storage"
	_, err = t.client.CSIVolumes().Register(volume, nil)
	refused("Register of what the provider has not", err, 500, "")
	_, _, err = t.client.CSIVolumes().ListExternal("none", &api.QueryOptions{})
	refused("ListExternal of an unknown plugin", err, 500, "no such plugin")
}

// snapshots are taken, listed, restored and deleted.
func (t *tester) snapshots() {
	volumes := t.client.CSIVolumes()
	id := t.run + "-source"
	source := t.create(t.definition(id), nil)
	request := &api.CSISnapshot{SourceVolumeID: id, Name: t.run + "-snapshot", Secrets: api.CSISecrets{"key": "value"}}
	made, _, err := volumes.CreateSnapshot(request, nil)
	must("CreateSnapshot", err)
	want("CreateSnapshot, snapshots", len(made.Snapshots), 1)
	snapshot := made.Snapshots[0]
	want("snapshot, external source", snapshot.ExternalSourceVolumeID, source.ExternalID)
	want("snapshot, ready", snapshot.IsReady, true)
	listed, _, err := volumes.ListSnapshotsOpts(&api.CSISnapshotListRequest{
		PluginID: t.plugin, Secrets: api.CSISecrets{"key": "value"}, QueryOptions: api.QueryOptions{PerPage: 100},
	})
	must("ListSnapshotsOpts", err)
	found := false
	for _, each := range listed.Snapshots {
		found = found || each.ID == snapshot.ID && each.PluginID == t.plugin
	}
	want("ListSnapshotsOpts has the snapshot", found, true)
	_, _, err = volumes.ListSnapshots(t.plugin, "key=value", &api.QueryOptions{PerPage: 1})
	must("ListSnapshots", err)

	restored := t.definition(t.run + "-restored")
	restored.SnapshotID = snapshot.ID
	want("a restored volume's snapshot", t.create(restored, nil).SnapshotID, snapshot.ID)
	cloned := t.definition(t.run + "-cloned")
	cloned.CloneID = source.ExternalID
	want("a clone's source", t.create(cloned, nil).CloneID, source.ExternalID)
	for _, name := range []string{"-restored", "-cloned", "-source"} {
		t.destroy(t.run+name, nil)
	}
	gone := &api.CSISnapshot{ID: snapshot.ID, PluginID: t.plugin, Secrets: api.CSISecrets{"key": "value"}}
	must("DeleteSnapshot", volumes.DeleteSnapshot(gone, nil))
	_, _, err = volumes.CreateSnapshot(&api.CSISnapshot{SourceVolumeID: "none", Name: "x"}, nil)
	refused("CreateSnapshot of nothing", err, 500, `no such volume "none"`)
	_, _, err = volumes.ListSnapshots("none", "", &api.QueryOptions{})
	refused("ListSnapshots of an unknown plugin", err, 500, "no such plugin")
}
