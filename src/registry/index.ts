/**
 * Sites, services, exposures: the desired state, its changes and its checks.
 * @module
 */
export { CLOUD, type DesiredState, type Exposure, type Service, type Site } from './model.ts';
export { exposureName, type Owner, Registry, type RegistryEvents } from './registry.ts';
