/**
 * The desired state: sites, services and exposures, with their checks and their changes.
 * @module
 */
export {
  CLOUD,
  type DesiredInput,
  type DesiredRecord,
  type DesiredState,
  type Exposure,
  type ExposureInput,
  type ExposureKey,
  type ExposureTerms,
  type ExposureTermsInput,
  exposureName,
  type Labels,
  nameWithin,
  type Owner,
  presenceFamily,
  type RecordName,
  type SelectorExposure,
  type SelectorExposureInput,
  type Service,
  type ServiceBinding,
  type ServiceInput,
  type Site,
  type SiteInput,
  type Spec,
  type VersionedRecord,
} from './model.ts';
export type { RecordQuery } from './record-pages.ts';
export {
  type AppliedChanges,
  type ChangeOptions,
  Registry,
  type RegistryEvents,
  type RegistryOptions,
} from './registry.ts';
export { type DesiredSource, type ExposureId, exposureId, type Touched } from './source.ts';
