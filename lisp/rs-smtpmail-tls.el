;;; rs-smtpmail-tls.el --- Whom to trust, and who we are  -*- lexical-binding: t -*-

;; Copyright (C) 2025 The rs-smtpmail authors

;; SPDX-License-Identifier: GPL-3.0-or-later

;;; Commentary:

;; The engine checks certificates by itself.  About one that it does not
;; accept it asks here, where Emacs's own settings count first:
;;
;; - What `gnutls-verify-error' makes an error is one, without a question.
;;   Its default, nil, does not mean that anything is accepted: in Emacs, too,
;;   the Network Security Manager then asks.
;; - An exception in `nsm-settings-file', for that server, that key and all
;;   that is wrong, is honoured.
;; - `network-security-level' is not: certificates of mail servers are checked
;;   at `low', too, and what the higher levels warn of is never spoken.
;;
;; Else the user is asked: never, this session, or always.

;;; Code:

(require 'gnutls)
(require 'rs-smtpmail)
(require 'rs-smtpmail-ask)

(declare-function network-stream-certificate "network-stream"
                  (host service parameters))
(declare-function nsm-host-settings "nsm" (id))
(declare-function nsm-id "nsm" (host port))
(declare-function rs-smtp--forget-tls "ext:rs-smtpmail-module" (server) t)
(declare-function rs-smtpmail--answer "rs-smtpmail-auth")
(declare-function rs-smtpmail--obsolete-certificate "rs-smtpmail-obsolete")
(declare-function rs-smtpmail--server "rs-smtpmail-message")
(declare-function rs-smtpmail--warn "rs-smtpmail-engine")

;;;; Internal variables

(defconst rs-smtpmail--nsm-conditions
  '((self-signed :self-signed :unknown-ca)
    (unknown-issuer :unknown-ca)
    (expired :expired)
    (not-yet-valid :not-activated)
    (wrong-name :no-host-match)
    (weak-signature :insecure))
  "What can be wrong with a certificate, and the NSM's names for it.")

(defconst rs-smtpmail--certificate-choices
  '((?n "never" "Refuse it; the mail stays in the spool.")
    (?s "this session" "Trust this key for this server until Emacs is left.")
    (?a "always" "Trust this key, and no other, for this server for good."))
  "The choices for `read-multiple-choice' about a certificate.")

;;;; Settings and servers

(defun rs-smtpmail--tls-pins ()
  "Return `rs-smtpmail-tls-pins' for the engine."
  (mapcar (pcase-lambda (`(,endpoint . ,keys))
            (cons endpoint (ensure-list keys)))
          rs-smtpmail-tls-pins))

;;;; Certificates of servers

(defun rs-smtpmail--answer-certificate (event)
  "Answer EVENT, by which the engine asks whether to trust a certificate."
  (let ((problems (plist-get event :problems)))
    (cond
     ((rs-smtpmail--verify-error-p (plist-get event :host) problems)
      (rs-smtpmail--answer event '(:error "Variable `gnutls-verify-error' forbids to ask")))
     ((rs-smtpmail--nsm-accepts-p event)
      (rs-smtpmail--answer event '(:trusted t)))
     (noninteractive
      (rs-smtpmail--answer event '(:error "Nobody can be asked in batch Emacs")))
     (t (rs-smtpmail--when-user-is-there #'rs-smtpmail--ask-certificate event)))))

(defun rs-smtpmail--verify-error-p (host problems)
  "Whether one of PROBLEMS is an error for HOST by `gnutls-verify-error'.
A changed key is none of its business."
  (let ((flags (if (consp gnutls-verify-error)
                   (flatten-tree
                    (cdr (seq-find (lambda (entry) (string-match-p (car entry) host))
                                   gnutls-verify-error)))
                 (list gnutls-verify-error))))
    (seq-some (lambda (problem)
                (or (memq t flags)
                    (memq (if (eq problem 'wrong-name) :hostname :trustfiles)
                          flags)))
              (remq 'changed problems))))

(defun rs-smtpmail--nsm-accepts-p (event)
  "Whether the Network Security Manager has an exception for EVENT.
It must be for that server and key, and for all that is wrong."
  (require 'nsm)
  (let* ((settings (nsm-host-settings (nsm-id (plist-get event :host)
                                              (plist-get event :port))))
         (fingerprints (plist-get settings :fingerprints))
         (conditions (plist-get settings :conditions)))
    (and (seq-intersection
          fingerprints
          (list (plist-get event :nsm-fingerprint)
                (concat "sha256:" (downcase (plist-get event :key-fingerprint)))))
         (seq-every-p
          (lambda (problem)
            (seq-intersection
             conditions
             (unless (eq problem 'changed)
               (cons :verify-cert
                     (alist-get problem rs-smtpmail--nsm-conditions)))))
          (plist-get event :problems)))))

(defun rs-smtpmail--ask-certificate (event)
  "Ask the user whether to trust the certificate of EVENT, and answer it."
  (let ((answer '(:error "You did not say whether to trust it")))
    (unwind-protect
        (setq answer
              (condition-case err
                  (pcase (rs-smtpmail--stoppably
                           (rs-smtpmail--judge-certificate event))
                    (?s '(:trusted t))
                    (?a (rs-smtpmail--pin event)
                        '(:trusted t))
                    (_ '(:error "You refused it")))
                (quit answer)
                (error (list :error (error-message-string err)))))
      (rs-smtpmail--answer event answer))))

(defun rs-smtpmail--judge-certificate (event)
  "Show the certificate of EVENT; return the key of the user's choice."
  (let* ((endpoint (plist-get event :endpoint))
         (buffer (get-buffer-create (format "*certificate of %s*" endpoint))))
    (save-window-excursion
      (unwind-protect
          (progn
            (with-current-buffer buffer
              (let ((inhibit-read-only t))
                (erase-buffer)
                (rs-smtpmail--insert-certificate event)
                (goto-char (point-min)))
              (special-mode))
            (pop-to-buffer buffer)
            (car (read-multiple-choice
                  (if (memq 'changed (plist-get event :problems))
                      (format "ALARM: trust the new key of %s?" endpoint)
                    (format "Trust the certificate of %s?" endpoint))
                  rs-smtpmail--certificate-choices)))
        (kill-buffer buffer)))))

(defun rs-smtpmail--insert-certificate (event)
  "Insert the certificate of EVENT, as text, and what is wrong with it."
  (insert (propertize (format "Mail to %s waits, for:\n\n"
                              (plist-get event :endpoint))
                      'face 'bold))
  (dolist (reason (plist-get event :reasons))
    (let ((start (point)))
      (insert "* " (propertize reason 'face
                               (if (string-prefix-p "ALARM" reason) 'error 'warning))
              "\n")
      (let ((fill-prefix "  ")) (fill-region start (point)))))
  (insert "\n")
  (pcase-dolist (`(,label . ,text)
                 `(("Subject" . ,(plist-get event :subject))
                   ("Issuer" . ,(plist-get event :issuer))
                   ("Valid" . ,(format "%s to %s" (plist-get event :not-before)
                                       (plist-get event :not-after)))
                   ("For" . ,(string-join (plist-get event :names) ", "))))
    (insert (format "%-9s%s\n" (concat label ":") text)))
  (insert "\nSHA-256 of the certificate:\n  " (plist-get event :fingerprint)
          "\nSHA-256 of its key, which is what will be trusted:\n  "
          (plist-get event :key-fingerprint)
          "\n\nCompare it with what whoever runs the server says.\n"))

(defun rs-smtpmail--pin (event)
  "Save the key of EVENT as the only one of its server."
  (let ((pins (copy-alist rs-smtpmail-tls-pins)))
    (setf (alist-get (plist-get event :endpoint) pins nil nil
                     #'rs-smtpmail--same-endpoint-p)
          (plist-get event :key-fingerprint))
    (customize-set-variable 'rs-smtpmail-tls-pins pins)
    (condition-case err
        (customize-save-variable 'rs-smtpmail-tls-pins pins)
      (error
       (rs-smtpmail--warn :warning "`rs-smtpmail-tls-pins' is set, but not saved: %s"
                          (error-message-string err))))))

(defun rs-smtpmail--same-endpoint-p (one other)
  "Whether ONE and OTHER name the same host and port."
  (string-equal (downcase one) (downcase other)))

;;;; Our own certificate

(defun rs-smtpmail--answer-client-certificate (event)
  "Answer EVENT, by which the engine asks for a client certificate.
It is searched as `open-network-stream' does: key and cert in the
server's entry of `auth-sources'; then in smtpmail's obsolete option."
  (require 'network-stream)
  (require 'rs-smtpmail-obsolete)
  (let ((host (plist-get event :host))
        (port (plist-get event :port)))
    (rs-smtpmail--answer
     event
     (condition-case err
         (pcase (or (rs-smtpmail--stoppably
                      (network-stream-certificate host port '(:client-certificate t)))
                    (rs-smtpmail--obsolete-certificate host port))
           (`(,key ,certificate)
            (list :key (expand-file-name key)
                  :certificate (expand-file-name certificate))))
       (quit (list :later "You have stopped the search for a client certificate"))
       (error (list :error (format "Searching for a client certificate failed: %s"
                                   (error-message-string err))))))))

;;;; Commands

;;;###autoload
(defun rs-smtpmail-tls-forget (server)
  "Forget what was learnt of the TLS of SERVER.
That is the certificate that you trusted for this session, and that it
has offered STARTTLS, so that mail may go unencrypted if it does not any
more.  SERVER is a property list as for `rs-smtp-send'; interactively, the
one that smtpmail's options name in this buffer.  What you trust for good
is in `rs-smtpmail-tls-pins'."
  (interactive
   (progn
     (require 'smtpmail)
     (require 'rs-smtpmail-message)
     (list (rs-smtpmail--server))))
  (require 'rs-smtpmail-native)
  (rs-smtp--forget-tls server)
  (message "Forgot what was learnt of %s:%s"
           (plist-get server :host) (plist-get server :port)))

(provide 'rs-smtpmail-tls)

;;; rs-smtpmail-tls.el ends here
