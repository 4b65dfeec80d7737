// A guest of the ring benchmark: watches one namespace and passes each new nonce on to the next. The rules are in ../ring/README.md.
import { getEnvironment } from 'wasi:cli/environment@0.2.10';

const GROUP = 'ring.wasm-operator.dev';
const ORIGIN = `${GROUP}/origin`;
const DONE = { tag: 'done' };
const retryable = (message) => ({ tag: 'retryable', val: { message } }); // with the host's backoff

// What runs at the top level of this file runs once, when the component is built: settings are read when a call needs them.
function settings() {
  const { IN_NAMESPACE: input, OUT_NAMESPACE: output, HEAP_MEM_SIZE: bytes } = Object.fromEntries(getEnvironment());
  if (!input || !output) throw 'the ring guest needs the environment variables `IN_NAMESPACE` and `OUT_NAMESPACE`';
  if (bytes && !/^[0-9]+$/.test(bytes)) throw `\`HEAP_MEM_SIZE\` must be a number of bytes, not \`${bytes}\``;
  return { input, output, bytes: Number(bytes ?? 0) };
}

export function describe() {
  const { input, output } = settings();
  const watch = (namespace, mapping, changed) => ({
    of: { group: GROUP, version: 'v1', kind: 'TestResource', plural: 'testresources' },
    namespaces: [namespace], labelSelector: '', fieldSelector: '', representation: 'full', mapping: { tag: mapping }, changed, having: [],
  });
  const rule = (namespace, verbs) => ({ apiGroups: [GROUP], resources: ['testresources'], verbs, resourceNames: [], namespaces: [namespace] });
  return {
    controllers: [{
      name: 'ring',
      primary: watch(input, 'object', { generation: true }),
      watches: [watch(output, 'nothing', {})], // so that the target is read from the host's cache
    }],
    permissions: [
      rule(input, ['get', 'list', 'watch']),
      rule(output, ['get', 'list', 'watch', 'create', 'update']),
    ],
  };
}

let ballast; // held as long as the instance lives

export async function reconcile({ content }) {
  const { output, bytes } = settings();
  ballast ??= new Uint8Array(bytes).map((_, index) => index >> 12);
  if (!content) return DONE;

  const { metadata: { name, namespace, annotations }, spec } = JSON.parse(new TextDecoder().decode(content));
  const carried = annotations?.[ORIGIN] ?? '';
  const origin = carried.endsWith(`/${spec.nonce}`) ? carried : `${namespace}/${spec.nonce}`;
  if (origin === `${output}/${spec.nonce}`) return DONE; // the lap is over

  const objects = `https://kubernetes.default.svc/apis/${GROUP}/v1/namespaces/${output}/testresources`;
  const target = await send('GET', `${objects}/${name}?resourceVersion=0`);
  if (target?.spec.nonce > spec.nonce) return DONE; // overtaken
  if (target?.spec.nonce === spec.nonce && target.metadata.annotations?.[ORIGIN] === origin) return DONE; // there already

  const next = target ?? { apiVersion: `${GROUP}/v1`, kind: 'TestResource', metadata: { name, namespace: output } };
  next.metadata.annotations = { ...next.metadata.annotations, [ORIGIN]: origin };
  next.spec = spec;
  // An update carries the version that was read: whoever wrote in between wins with a 409, and we look again.
  await (target ? send('PUT', `${objects}/${name}`, next) : send('POST', objects, next));
  return DONE;

  async function send(method, url, object) {
    let answer, content;
    try {
      answer = await fetch(url, { method, headers: { 'content-type': 'application/json' }, body: object && JSON.stringify(object) });
      content = await answer.json(); // to its end, always: until then the request counts as in flight
    } catch (error) {
      throw retryable(`cannot pass nonce ${spec.nonce} on to namespace \`${output}\`: ${error.message}`);
    }
    if (answer.ok) return content;
    if (method === 'GET' && answer.status === 404) return undefined;
    throw retryable(`cannot pass nonce ${spec.nonce} on to namespace \`${output}\`: ${content.message}`);
  }
}
