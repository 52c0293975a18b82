// Adds an upload button to Load Mesh and Load Splat in the classic node view. (The Vue node view
// has one already: the input option `mesh_upload` asks for it.)
import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";

const ACCEPTED = {
  Lift3D_LoadMesh: ".glb,.gltf,.obj,.stl,.ply",
  Lift3D_LoadSplat: ".ply,.splat,.spz",
};

async function upload(file) {
  const body = new FormData();
  body.append("image", file);
  body.append("subfolder", "3d");
  body.append("type", "input");
  const response = await api.fetchApi("/upload/image", { method: "POST", body });
  if (response.status !== 200) {
    throw new Error(`Uploading ${file.name} failed: ${response.status} ${response.statusText}`);
  }
  const saved = await response.json();
  return saved.subfolder ? `${saved.subfolder}/${saved.name}` : saved.name;
}

function chooseFile(accept, onFile) {
  const input = document.createElement("input");
  input.type = "file";
  input.accept = accept;
  input.onchange = () => input.files.length && onFile(input.files[0]);
  input.click();
}

app.registerExtension({
  name: "lift3d.upload",
  nodeCreated(node) {
    const accept = ACCEPTED[node.comfyClass];
    const path = node.widgets?.find((widget) => widget.name === "path");
    if (!accept || !path || window.LiteGraph?.vueNodesMode) return;
    const button = node.addWidget("button", "upload", "", () =>
      chooseFile(accept, async (file) => {
        try {
          const name = await upload(file);
          const values = path.options.values;
          if (Array.isArray(values) && !values.includes(name)) values.push(name);
          path.value = name;
          path.callback?.(name);
          node.setDirtyCanvas(true, true);
        } catch (error) {
          app.extensionManager?.toast?.addAlert?.(error.message) ?? window.alert(error.message);
        }
      })
    );
    button.label = "choose file to upload";
    button.serialize = false;
    button.options.serialize = false;
  },
});
