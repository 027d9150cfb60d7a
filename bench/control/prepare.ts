/**
 * A program that writes the desired state, its leases and the certificates of all sites to a store, and ends:
 *
 *     node prepare.js DIRECTORY SITES CLIENTS
 *
 * @module
 */
import { PresenceController } from '../../src/control/index.ts';
import { Registry } from '../../src/registry/index.ts';
import { FileStore } from '../../src/store/index.ts';
import { PacketTranslator } from '../../src/translator/index.ts';
import { certificates, desiredState, OWNER } from './scene.ts';

const [path, sites, clients] = process.argv.slice(2);
const store = await FileStore.open({ path: path! });
const registry = await Registry.open(store);
await store.commit(certificates(Number(sites), Date.now()));
await registry.apply(desiredState(Number(sites), Number(clients)), OWNER);
const translator = new PacketTranslator();
const controller = await PresenceController.start({ registry, store, translator });
await controller.close();
await registry.close();
await store.close();
