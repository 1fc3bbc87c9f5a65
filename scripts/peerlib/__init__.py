"""What Ashlar is measured and compared with: a registry with base images, two dockerd for their BuildKit, buildah.

Start reading at `cli.py`. Everything lives in one folder (`settings.Settings.home`) and every process that is started has
a pid file there, so that `stop` ends exactly those.
"""
