# make install / make uninstall, below $(DESTDIR)$(PREFIX).
#
# vmctl looks for vmmd beside itself and in ../libexec/polyvisor; vmmd looks for vcpud and devd beside
# itself. So the daemons stand together in libexec, and sbin/vmmd is a link for people. Manual pages
# and completions are printed by vmctl itself.

BINDIR := $(DESTDIR)$(PREFIX)/bin
SBINDIR := $(DESTDIR)$(PREFIX)/sbin
LIBEXECDIR := $(PREFIX)/libexec/polyvisor
MANDIR := $(DESTDIR)$(PREFIX)/share/man
AGENTDIR := $(DESTDIR)$(PREFIX)/share/polyvisor/agent
IMAGEDIR := $(DESTDIR)$(PREFIX)/share/polyvisor/image
DOCDIR := $(DESTDIR)$(PREFIX)/share/doc/polyvisor
UNITDIR := $(DESTDIR)$(PREFIX)/lib/systemd/system
BASHDIR := $(DESTDIR)$(PREFIX)/share/bash-completion/completions
ZSHDIR := $(DESTDIR)$(PREFIX)/share/zsh/site-functions
VMCTL := $(BUILD)/bin/vmctl

.PHONY: install uninstall
install: $(PROGRAMS) $(AGENTS)
	install -d $(BINDIR) $(SBINDIR) $(DESTDIR)$(LIBEXECDIR) $(MANDIR)/man1 $(MANDIR)/man8 $(DOCDIR) \
	    $(UNITDIR) $(BASHDIR) $(ZSHDIR)
	install -m 755 $(VMCTL) $(BINDIR)/vmctl
	install -m 755 $(filter-out $(VMCTL),$(PROGRAMS)) $(DESTDIR)$(LIBEXECDIR)
	ln -sfn ../libexec/polyvisor/vmmd $(SBINDIR)/vmmd
	$(VMCTL) help --man >$(MANDIR)/man1/vmctl.1
	for command in $$($(VMCTL) --quiet help); do \
	    $(VMCTL) help --man $$command >$(MANDIR)/man1/vmctl-$$command.1 || exit 1; done
	sed 's|@VERSION@|$(VERSION)|' docs/man/vmmd.8 >$(MANDIR)/man8/vmmd.8
	$(VMCTL) help --completion bash >$(BASHDIR)/vmctl
	$(VMCTL) help --completion zsh >$(ZSHDIR)/_vmctl
	sed 's|@LIBEXECDIR@|$(LIBEXECDIR)|' systemd/vmmd.service.in >$(UNITDIR)/vmmd.service
	for arch in $(AGENT_ARCHS); do install -d $(AGENTDIR)/$$arch && \
	    install -m 755 build/agent/$$arch/polyvisor-agent $(AGENTDIR)/$$arch || exit 1; done
	rm -rf $(IMAGEDIR)
	install -d $(IMAGEDIR)
	cp -r --no-preserve=ownership image/. $(IMAGEDIR)
	install -m 644 README.md LICENSE docs/errors.md $(DOCDIR)

uninstall:
	rm -f $(BINDIR)/vmctl $(SBINDIR)/vmmd $(MANDIR)/man1/vmctl.1 $(MANDIR)/man1/vmctl-*.1 \
	    $(MANDIR)/man8/vmmd.8 $(BASHDIR)/vmctl $(ZSHDIR)/_vmctl $(UNITDIR)/vmmd.service
	rm -rf $(DESTDIR)$(LIBEXECDIR) $(DOCDIR) $(AGENTDIR) $(IMAGEDIR)
